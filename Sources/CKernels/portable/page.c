#include "../include/kv_page.h"
#include "copy.h"

// The streaming stores are part of every x86-64, so no tier chooses them.
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

void kv_scatter_rows(const kv_placement *placement, const uint8_t *rows, const uint32_t *tokens, size_t first, size_t count,
                     int past_caches, uint8_t *page) {
    const size_t bytes = placement->bytes, row_bytes = placement->row_bytes;
    for (size_t r = 0; r < placement->run_count; r++) {
        kv_run run = placement->runs[r];
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

void kv_gather_rows(const kv_placement *placement, const uint8_t *page, size_t first, size_t count, uint8_t *rows) {
    const size_t bytes = placement->bytes, row_bytes = placement->row_bytes;
    for (size_t r = 0; r < placement->run_count; r++) {
        kv_run run = placement->runs[r];
        for (size_t i = 0; i < count; i++)
            copy_run(page + (run.base + (first + i) * run.token_stride) * bytes, run.element_stride,
                     rows + i * row_bytes + run.column * bytes, 1, run.length, bytes);
    }
}
