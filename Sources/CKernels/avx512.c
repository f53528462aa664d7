#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

// 32 columns × TOKENS tokens of int32 sums in registers; one instruction multiplies and adds 32 pairs of digits.
VNNI static inline __attribute__((always_inline)) void block(const int tokens, const int8_t *digits, uint32_t pairs,
                                                             const int16_t *codes, size_t code_stride, float scale,
                                                             float *target, size_t stride, uint32_t columns) {
    __m512i sum[12][2];
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = _mm512_setzero_si512();
    for (uint32_t p = 0; p < pairs; p++) {
        const int8_t *at = digits + (size_t)p * KV_TILE * 2;
        __m512i left = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)at));
        __m512i right = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(at + 32)));
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++) {
            int32_t pair;
            memcpy(&pair, codes + (p * code_stride + t) * 2, 4);
            __m512i code = _mm512_set1_epi32(pair);
            // By name: compilers split the intrinsic into a multiplication and an addition.
            __asm__("vpdpwssd %2, %1, %0" : "+v"(sum[t][0]) : "v"(left), "v"(code));
            __asm__("vpdpwssd %2, %1, %0" : "+v"(sum[t][1]) : "v"(right), "v"(code));
        }
    }
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
        float row[KV_TILE];
        for (int h = 0; h < 2; h++)
            _mm512_storeu_ps(row + 16 * h, _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t][h]), _mm512_set1_ps(scale)));
        for (uint32_t c = 0; c < columns; c++) target[t * stride + c] += row[c];
    }
}

VNNI static void vnni_inverse(kv_basis basis, uint32_t first, uint32_t count, const int16_t *codes, uint32_t tokens,
                              uint32_t column_begin, uint32_t column_end, float scale, float *target, size_t stride) {
    if (first % 2 || count % 2 || column_begin % KV_TILE) {
        scalar_inverse(basis, first, count, codes, tokens, column_begin, column_end, scale, target, stride);
        return;
    }
    size_t tile_size = (size_t)((basis.digits + 1) / 2) * KV_TILE * 2;
    for (uint32_t c = column_begin; c < column_end; c += KV_TILE) {
        const int8_t *digits = basis.packed + c / KV_TILE * tile_size + (size_t)first * KV_TILE;
        uint32_t columns = column_end - c < KV_TILE ? column_end - c : KV_TILE, t = 0;
        for (; t + 12 <= tokens; t += 12)
            block(12, digits, count / 2, codes + (size_t)t * 2, tokens, scale, target + t * stride + c, stride, columns);
        for (; t + 4 <= tokens; t += 4)
            block(4, digits, count / 2, codes + (size_t)t * 2, tokens, scale, target + t * stride + c, stride, columns);
        for (; t < tokens; t++)
            block(1, digits, count / 2, codes + (size_t)t * 2, tokens, scale, target + t * stride + c, stride, columns);
    }
}

static const kv_kernels vnni_table = {"avx512-vnni", avx2_to_float, avx2_from_float, vnni_inverse};

const kv_kernels *kv_avx512(void) {
    return kv_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vnni")
               ? &vnni_table
               : NULL;
}
#else
const kv_kernels *kv_avx512(void) { return NULL; }
#endif
