#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

enum { ROWS = 4, LANES = 16 };

// Columns `j`… of up to four rows, in some vectors: each sum in the order of the matrix's rows.
VNNI static inline __attribute__((always_inline)) void columns(const int vectors, float copies[ROWS][KV_WIDEST], size_t own,
                                                               const float *matrix, size_t width, size_t j, float *rows,
                                                               size_t stride) {
    __m512 sum[ROWS][4];
#pragma clang loop unroll(full)
    for (int k = 0; k < ROWS; k++)
        for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_setzero_ps();
    for (size_t i = 0; i < width; i++) {
        __m512 entries[4];
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++) entries[v] = _mm512_loadu_ps(matrix + i * width + j + LANES * v);
#pragma clang loop unroll(full)
        for (int k = 0; k < ROWS; k++) {
            __m512 x = _mm512_set1_ps(copies[k][i]);
            for (int v = 0; v < vectors; v++) sum[k][v] = _mm512_fmadd_ps(x, entries[v], sum[k][v]);
        }
    }
    for (size_t k = 0; k < own; k++)
        for (int v = 0; v < vectors; v++) _mm512_storeu_ps(rows + k * stride + j + LANES * v, sum[k][v]);
}

VNNI void avx512_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width) {
    if (width % LANES) {
        avx2_multiply(rows, count, stride, matrix, width);
        return;
    }
    float copies[ROWS][KV_WIDEST];
    for (size_t r = 0; r < count; r += ROWS, rows += ROWS * stride) {
        size_t own = count - r < ROWS ? count - r : ROWS, j = 0;
        for (size_t k = 0; k < ROWS; k++) memcpy(copies[k], rows + (k < own ? k : 0) * stride, width * sizeof(float));
        for (; j + 4 * LANES <= width; j += 4 * LANES) columns(4, copies, own, matrix, width, j, rows, stride);
        for (; j < width; j += LANES) columns(1, copies, own, matrix, width, j, rows, stride);
    }
}
#endif
