#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

AVX2 void avx2_scale_offset(float *row, const float *scale, const float *offset, size_t count) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(row + i, _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(row + i), _mm256_loadu_ps(scale + i)),
                                                _mm256_loadu_ps(offset + i)));
    scalar_scale_offset(row + i, scale + i, offset + i, count - i);
}

AVX2 void avx2_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width) {
    enum { ROWS = 4 };
    float copies[ROWS][KV_WIDEST];
    for (size_t r = 0; r < count; r += ROWS, rows += ROWS * stride) {
        size_t own = count - r < ROWS ? count - r : ROWS, j = 0;
        for (size_t k = 0; k < ROWS; k++) memcpy(copies[k], rows + (k < own ? k : 0) * stride, width * sizeof(float));
        for (; j + 16 <= width; j += 16) {
            __m256 low[ROWS], high[ROWS];
            for (int k = 0; k < ROWS; k++) low[k] = high[k] = _mm256_setzero_ps();
            for (size_t i = 0; i < width; i++) {
                __m256 a = _mm256_loadu_ps(matrix + i * width + j), b = _mm256_loadu_ps(matrix + i * width + j + 8);
                for (int k = 0; k < ROWS; k++) {
                    __m256 x = _mm256_broadcast_ss(copies[k] + i);
                    low[k] = _mm256_fmadd_ps(x, a, low[k]);
                    high[k] = _mm256_fmadd_ps(x, b, high[k]);
                }
            }
            for (size_t k = 0; k < own; k++) {
                _mm256_storeu_ps(rows + k * stride + j, low[k]);
                _mm256_storeu_ps(rows + k * stride + j + 8, high[k]);
            }
        }
        for (; j < width; j++)
            for (size_t k = 0; k < own; k++) {
                float sum = 0;
                for (size_t i = 0; i < width; i++) sum = __builtin_fmaf(copies[k][i], matrix[i * width + j], sum);
                rows[k * stride + j] = sum;
            }
    }
}

AVX2 void avx2_rotate(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction) {
    const __m256 flip = _mm256_set1_ps(direction < 0 ? -0.0f : 0.0f);
    for (size_t r = 0; r < count; r++) {
        kv_rotation rotation = rotations[r];
        const float *table = angles + rotation.angle;
        float *a = row + rotation.first, *b = a + rotation.partner;
        uint32_t i = 0;
        if (rotation.step == 1) {
            for (; i + 8 <= rotation.pairs; i += 8) {
                __m256 low = _mm256_loadu_ps(table + 2 * i), high = _mm256_loadu_ps(table + 2 * i + 8);
                __m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(low, high, 0x88)), 0xD8));
                __m256 s = _mm256_xor_ps(
                    _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xDD)), 0xD8)), flip);
                __m256 x = _mm256_loadu_ps(a + i), y = _mm256_loadu_ps(b + i);
                _mm256_storeu_ps(a + i, _mm256_sub_ps(_mm256_mul_ps(x, c), _mm256_mul_ps(y, s)));
                _mm256_storeu_ps(b + i, _mm256_add_ps(_mm256_mul_ps(x, s), _mm256_mul_ps(y, c)));
            }
        } else if (rotation.step == 2 && rotation.partner == 1) {
            for (; i + 4 <= rotation.pairs; i += 4) {
                __m256 angle = _mm256_loadu_ps(table + 2 * i), v = _mm256_loadu_ps(a + 2 * i);
                __m256 s = _mm256_xor_ps(_mm256_movehdup_ps(angle), flip);
                _mm256_storeu_ps(a + 2 * i, _mm256_addsub_ps(_mm256_mul_ps(v, _mm256_moveldup_ps(angle)),
                                                             _mm256_mul_ps(_mm256_permute_ps(v, 0xB1), s)));
            }
        }
        if (i == rotation.pairs) continue;
        kv_rotation rest = rotation;
        rest.first += i * rotation.step;
        rest.pairs -= i;
        rest.angle += 2 * i;
        scalar_rotate(row, &rest, 1, angles, direction);
    }
}
#endif
