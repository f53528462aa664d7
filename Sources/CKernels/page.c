#include "tables.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

void kv_copy_past_caches(uint8_t *target, const uint8_t *source, size_t bytes) {
#if defined(__SSE2__)
    size_t head = -(uintptr_t)target % 64;
    if (head > bytes) head = bytes;
    memcpy(target, source, head);
    target += head, source += head, bytes -= head;
    for (; bytes >= 64; target += 64, source += 64, bytes -= 64)
        for (size_t i = 0; i < 64; i += 16)
            _mm_stream_si128((__m128i *)(target + i), _mm_loadu_si128((const __m128i *)(source + i)));
    // Such stores are not ordered with those by which others learn that the bytes are there.
    _mm_sfence();
#endif
    memcpy(target, source, bytes);
}

static inline void copy_run(const uint8_t *source, size_t source_stride, uint8_t *target, size_t target_stride,
                            size_t length, size_t bytes) {
    if (source_stride == 1 && target_stride == 1) {
        memcpy(target, source, length * bytes);
        return;
    }
    if (bytes == 2) {
        for (size_t i = 0; i < length; i++) memcpy(target + 2 * i * target_stride, source + 2 * i * source_stride, 2);
        return;
    }
    for (size_t i = 0; i < length; i++) memcpy(target + i * target_stride * bytes, source + i * source_stride * bytes, bytes);
}

void kv_scatter_rows(const uint8_t *rows, size_t row_bytes, const uint32_t *tokens, size_t first, size_t count,
                     const kv_run *runs, size_t run_count, size_t bytes, int past_caches, uint8_t *page) {
    for (size_t r = 0; r < run_count; r++) {
        kv_run run = runs[r];
        // Of short runs the lines at both ends would be written by halves.
        int streams = past_caches && run.element_stride == 1 && run.length * bytes >= 2048;
        for (size_t i = 0; i < count; i++) {
            const uint8_t *source = rows + i * row_bytes + run.column * bytes;
            uint8_t *target = page + (run.base + (tokens ? tokens[i] : first + i) * run.token_stride) * bytes;
            if (streams)
                kv_copy_past_caches(target, source, run.length * bytes);
            else
                copy_run(source, 1, target, run.element_stride, run.length, bytes);
        }
    }
}

void kv_gather_rows(const uint8_t *page, const kv_run *runs, size_t run_count, size_t bytes, uint8_t *rows,
                    size_t row_bytes, size_t first, size_t count) {
    for (size_t r = 0; r < run_count; r++) {
        kv_run run = runs[r];
        for (size_t i = 0; i < count; i++)
            copy_run(page + (run.base + (first + i) * run.token_stride) * bytes, run.element_stride,
                     rows + i * row_bytes + run.column * bytes, 1, run.length, bytes);
    }
}

void kv_synthesise(const kv_synthesis *page, const uint8_t *packed, size_t quads, uint32_t basis_begin,
                   const kv_term *terms, size_t term_count, uint32_t begin, uint32_t end, const kv_block *blocks,
                   size_t block_count, const kv_rotation *rotations, size_t rotation_count, const kv_run *runs,
                   size_t run_count, uint8_t *output) {
    // On the stack, so that decoding allocates nothing and the tile stays in the core's own cache.
    enum { AREA = 16384, WIDEST = 8192 };
    float area[AREA];
    uint8_t row[4 * WIDEST];
    const kv_kernels *kernels = page->kernels;
    uint32_t first_tile = (begin - basis_begin) / KV_TILE, end_tile = (end - basis_begin + KV_TILE - 1) / KV_TILE;
    uint32_t aligned = basis_begin + first_tile * KV_TILE;
    uint32_t width = (end_tile - first_tile) * KV_TILE, most = AREA / width;
    if (most > 12) most -= most % 12;
    for (uint32_t from = 0; from < page->rows;) {
        uint32_t slab = from / KV_SLAB, in_slab = from % KV_SLAB;
        uint32_t slab_rows = page->rows - slab * KV_SLAB < KV_SLAB ? page->rows - slab * KV_SLAB : KV_SLAB;
        uint32_t count = slab_rows - in_slab <= AREA / width ? slab_rows - in_slab : most;
        memset(area, 0, (size_t)count * width * sizeof(float));
        for (uint32_t tile = first_tile; tile < end_tile; tile++)
            kernels->inverse(packed + tile * quads * KV_QUAD * KV_TILE, terms, term_count, slab, slab_rows, in_slab, count,
                             area + (tile - first_tile) * KV_TILE, width, NULL);
        for (size_t b = 0; b < block_count; b++)
            kernels->multiply(area + (blocks[b].first - aligned), count, width, blocks[b].matrix, blocks[b].width);
        for (uint32_t t = 0; t < count; t++) {
            float *values = area + (size_t)t * width + (begin - aligned);
            kernels->scale_offset(values, page->inverse_weight + begin, page->mean + begin, end - begin);
            if (rotation_count)
                kernels->rotate(values - begin, rotations, rotation_count, page->angles + (from + t) * page->angle_stride, 1);
            for (size_t r = 0; r < run_count; r++) {
                kv_run run = runs[r];
                uint8_t *to = output + (run.base + page->tokens[from + t] * run.token_stride) * page->bytes;
                if (run.element_stride == 1) {
                    kernels->from_float(page->element, values + (run.column - begin), to, run.length);
                } else {
                    kernels->from_float(page->element, values + (run.column - begin), row, run.length);
                    copy_run(row, 1, to, run.element_stride, run.length, page->bytes);
                }
            }
        }
        from += count;
    }
}
