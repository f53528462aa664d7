#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>
#define AVX2 __attribute__((target("avx2,fma,f16c")))

AVX2 void avx2_to_float(kv_element element, const void *source, float *target, size_t count) {
    const uint8_t *bytes = source;
    size_t i = 0;
    if (element == KV_F16)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(target + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(bytes + 2 * i))));
    size_t width = element == KV_F32 ? 4 : element == KV_E4M3 || element == KV_E5M2 ? 1 : 2;
    scalar_to_float(element, bytes + i * width, target + i, count - i);
}

AVX2 size_t avx2_from_float(kv_element element, const float *source, void *target, size_t count) {
    if (element != KV_F16) return scalar_from_float(element, source, target, count);
    uint8_t *bytes = target;
    const __m256 limit = _mm256_set1_ps(65504.0f), sign = _mm256_set1_ps(-0.0f);
    size_t i = 0, clamped = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 v = _mm256_loadu_ps(source + i);
        __m256 magnitude = _mm256_andnot_ps(sign, v);
        int bad = _mm256_movemask_ps(_mm256_cmp_ps(magnitude, limit, _CMP_NLE_UQ));
        if (bad) {
            clamped += scalar_from_float(element, source + i, bytes + 2 * i, 8);
            continue;
        }
        _mm_storeu_si128((__m128i *)(bytes + 2 * i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    return clamped + scalar_from_float(element, source + i, bytes + 2 * i, count - i);
}

// 16 columns × up to 6 tokens of int32 sums in registers; each madd takes a pair of digits.
#define BLOCK(TOKENS)                                                                                                     \
    AVX2 static void block_##TOKENS(const int8_t *digits, uint32_t pairs, const int16_t *codes, size_t code_stride,       \
                                    float scale, float *target, size_t stride, uint32_t columns) {                        \
        __m256i sum[TOKENS][2];                                                                                           \
        for (int t = 0; t < TOKENS; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();                                  \
        for (uint32_t p = 0; p < pairs; p++) {                                                                            \
            const int8_t *at = digits + (size_t)p * KV_TILE * 2;                                                          \
            __m256i left = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)at));                                    \
            __m256i right = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(at + 16)));                            \
            for (int t = 0; t < TOKENS; t++) {                                                                            \
                int32_t pair;                                                                                             \
                memcpy(&pair, codes + (p * code_stride + t) * 2, 4);                                                \
                __m256i code = _mm256_set1_epi32(pair);                                                                   \
                sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(left, code));                                   \
                sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(right, code));                                  \
            }                                                                                                             \
        }                                                                                                                 \
        for (int t = 0; t < TOKENS; t++) {                                                                                \
            float row[16];                                                                                                \
            for (int h = 0; h < 2; h++)                                                                                   \
                _mm256_storeu_ps(row + 8 * h, _mm256_mul_ps(_mm256_cvtepi32_ps(sum[t][h]), _mm256_set1_ps(scale)));       \
            for (uint32_t c = 0; c < columns; c++) target[t * stride + c] += row[c];                                      \
        }                                                                                                                 \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
BLOCK(5)
BLOCK(6)

AVX2 static void avx2_inverse(kv_basis basis, uint32_t first, uint32_t count, const int16_t *codes, uint32_t tokens,
                              uint32_t column_begin, uint32_t column_end, float scale, float *target, size_t stride) {
    if (first % 2 || count % 2 || column_begin % 16) {
        scalar_inverse(basis, first, count, codes, tokens, column_begin, column_end, scale, target, stride);
        return;
    }
    size_t tile_size = (size_t)((basis.digits + 1) / 2) * KV_TILE * 2;
    for (uint32_t c = column_begin; c < column_end; c += 16) {
        const int8_t *digits = basis.packed + c / KV_TILE * tile_size + (size_t)first * KV_TILE + c % KV_TILE * 2;
        uint32_t columns = column_end - c < 16 ? column_end - c : 16;
        for (uint32_t t = 0; t < tokens; t += 6) {
            const int16_t *at = codes + (size_t)t * 2;
            float *to = target + t * stride + c;
            switch (tokens - t) {
            case 1: block_1(digits, count / 2, at, tokens, scale, to, stride, columns); break;
            case 2: block_2(digits, count / 2, at, tokens, scale, to, stride, columns); break;
            case 3: block_3(digits, count / 2, at, tokens, scale, to, stride, columns); break;
            case 4: block_4(digits, count / 2, at, tokens, scale, to, stride, columns); break;
            case 5: block_5(digits, count / 2, at, tokens, scale, to, stride, columns); break;
            default: block_6(digits, count / 2, at, tokens, scale, to, stride, columns);
            }
        }
    }
}

static const kv_kernels avx2_table = {"avx2", avx2_to_float, avx2_from_float, avx2_inverse};

const kv_kernels *kv_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") ? &avx2_table
                                                                                                            : NULL;
}
#else
const kv_kernels *kv_avx2(void) { return NULL; }
#endif
