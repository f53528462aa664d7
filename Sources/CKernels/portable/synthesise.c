#include "../include/CKernels.h"
#include "copy.h"

// On the stack, so that decoding allocates nothing and a tile stays in the core's own cache: floats of some tokens, and the
// elements of one.
enum { AREA = 16384, WIDEST = 8192 };

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
        for (uint32_t tile = first_tile; tile < end_tile; tile++) {
            kv_inverse_job job = {.tile = chunk->packed + tile * chunk->quads * KV_QUAD * KV_TILE,
                                  .terms = chunk->terms,
                                  .term_count = chunk->term_count,
                                  .slab = slab,
                                  .tokens = slab_rows,
                                  .first = in_slab,
                                  .count = count,
                                  .target = area + (tile - first_tile) * KV_TILE,
                                  .stride = width};
            kernels->transform.inverse(&job);
        }
        for (size_t b = 0; b < chunk->block_count; b++)
            kernels->rows.multiply(area + (chunk->blocks[b].first - aligned), count, width, chunk->blocks[b].matrix,
                                   chunk->blocks[b].width);
        for (uint32_t t = 0; t < count; t++)
            finish_row(page, chunk, from + t, area + (size_t)t * width + (begin - aligned));
        from += count;
    }
}
