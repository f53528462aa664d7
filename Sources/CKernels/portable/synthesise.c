#include "../include/CKernels.h"
#include "copy.h"

// On the stack, so that decoding allocates nothing and a tile stays in the core's own cache: floats of some tokens, and the
// elements of one.
enum { AREA = 16384, WIDEST = 8192 };
// Quads of digits that sums may have to be made together: of 32 columns they fill most of a core's nearest cache.
enum { BATCH = 256 };

// One token's floats become elements of the page.
static void finish_row(const kv_synthesis *page, const kv_chunk *chunk, uint32_t row, float *values) {
    const kv_kernels *kernels = page->kernels;
    uint8_t elements[4 * WIDEST];
    const uint32_t begin = chunk->begin;
    kernels->rows.scale_offset(values, page->inverse_weight + begin, page->mean + begin, chunk->end - begin);
    if (chunk->rotation_count)
        kernels->rows.rotate(values - begin, chunk->rotations, chunk->rotation_count,
                             page->angles + row * page->angle_stride, 1);
    for (size_t r = 0; r < chunk->run_count; r++) {
        kv_run run = chunk->runs[r];
        uint8_t *to = page->output + (run.base + page->tokens[row] * run.token_stride) * page->bytes;
        if (run.element_stride == 1) {
            kernels->convert.from_float(page->element, values + (run.column - begin), to, run.length);
        } else {
            kernels->convert.from_float(page->element, values + (run.column - begin), elements, run.length);
            copy_run(elements, 1, to, run.element_stride, run.length, page->bytes);
        }
    }
}

// The terms of some sums, and the digits that they read of a tile.
typedef struct {
    size_t first, end;        // of the terms
    uint32_t quads, end_quad; // of a tile
} kv_batch;

// The sums from `first` on that have few digits which lie together; or one sum.
static kv_batch next_sums(const kv_chunk *chunk, size_t first) {
    kv_batch sums = {first, first, 0, 0};
    for (size_t end = first; end < chunk->term_count;) {
        uint32_t quads = chunk->terms[end].first, end_quad = 0;
        do {
            const kv_term *term = chunk->terms + end++;
            if (term->first < quads) quads = term->first;
            if (term->first + term->quads > end_quad) end_quad = term->first + term->quads;
        } while (chunk->terms[end - 1].scale == 0 && end < chunk->term_count);
        if (sums.end == first) sums.quads = quads;
        else if (quads < sums.quads || end_quad - sums.quads > BATCH) break;
        sums.end = end;
        if (end_quad > sums.end_quad) sums.end_quad = end_quad;
    }
    return sums;
}

// Adds all sums to `count` rows from `in_slab` on of a slab. The codes and digits of a few sums serve all tiles before the next
// sums are begun, so that they stay in the core's own cache however many components there are; meanwhile the next tile's
// digits come from memory.
static void add_sums(const kv_synthesis *page, const kv_chunk *chunk, uint32_t first_tile, uint32_t end_tile, uint32_t slab,
                     uint32_t slab_rows, uint32_t in_slab, uint32_t count, float *area) {
    const size_t tile_bytes = chunk->quads * KV_QUAD * KV_TILE;
    const uint32_t width = (end_tile - first_tile) * KV_TILE;
    if (chunk->term_count == 0) return;
    for (kv_batch sums = next_sums(chunk, 0), next; sums.first < chunk->term_count; sums = next) {
        // After the last sums of these columns come the first ones of the next columns.
        const int is_last = sums.end == chunk->term_count;
        next = next_sums(chunk, sums.end);
        const kv_batch after = is_last ? next_sums(chunk, 0) : next;
        for (uint32_t tile = first_tile; tile < end_tile; tile++) {
            const int stays = tile + 1 < end_tile;
            const kv_batch near = stays ? sums : after;
            const uint32_t near_tile = stays ? tile + 1 : is_last ? end_tile : first_tile;
            kv_ahead ahead = {.at = chunk->packed + near_tile * tile_bytes + (size_t)near.quads * KV_QUAD * KV_TILE,
                              .stride = 1024,
                              .lines = (near.end_quad - near.quads) * (KV_QUAD * KV_TILE / 64)};
            kv_inverse_job job = {.tile = chunk->packed + tile * tile_bytes,
                                  .quads = chunk->quads,
                                  .terms = chunk->terms + sums.first,
                                  .term_count = sums.end - sums.first,
                                  .slab = slab,
                                  .tokens = slab_rows,
                                  .first = in_slab,
                                  .count = count,
                                  .target = area + (tile - first_tile) * KV_TILE,
                                  .stride = width,
                                  .ahead = &ahead};
            page->kernels->transform.inverse(&job);
        }
    }
}

void kv_synthesise(const kv_synthesis *page, const kv_chunk *chunk) {
    float area[AREA];
    const kv_kernels *kernels = page->kernels;
    const uint32_t begin = chunk->begin, basis_begin = chunk->basis_begin;
    uint32_t first_tile = (begin - basis_begin) / KV_TILE, end_tile = (chunk->end - basis_begin + KV_TILE - 1) / KV_TILE;
    uint32_t aligned = basis_begin + first_tile * KV_TILE;
    uint32_t width = (end_tile - first_tile) * KV_TILE, most = AREA / width;
    if (most > 12) most -= most % 12;
    for (uint32_t from = 0; from < page->rows;) {
        uint32_t slab = from / KV_SLAB, in_slab = from % KV_SLAB;
        uint32_t slab_rows = page->rows - slab * KV_SLAB < KV_SLAB ? page->rows - slab * KV_SLAB : KV_SLAB;
        uint32_t count = slab_rows - in_slab <= AREA / width ? slab_rows - in_slab : most;
        memset(area, 0, (size_t)count * width * sizeof(float));
        add_sums(page, chunk, first_tile, end_tile, slab, slab_rows, in_slab, count, area);
        for (size_t b = 0; b < chunk->block_count; b++)
            kernels->rows.multiply(area + (chunk->blocks[b].first - aligned), count, width, chunk->blocks[b].matrix,
                                   chunk->blocks[b].width);
        for (uint32_t t = 0; t < count; t++)
            finish_row(page, chunk, from + t, area + (size_t)t * width + (begin - aligned));
        from += count;
    }
}
