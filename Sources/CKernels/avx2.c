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

AVX2 void avx2_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                    uint8_t *turned) {
    enum { SQUARE = KV_QUAD * KV_QUAD };
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (size_t i = 0; i < tiles * QUADS_A_TILE; i++) {
        const uint8_t *at = packed + (i / QUADS_A_TILE * quads + first) * TILE_QUAD + i % QUADS_A_TILE * SQUARE;
        uint8_t *to = turned + places[i] * TILE_QUAD;
        for (size_t q = 0; q < count; q++) {
            __m128i square = _mm_loadu_si128((const __m128i *)(at + q * TILE_QUAD));
            _mm_storeu_si128((__m128i *)(to + q * SQUARE), _mm_shuffle_epi8(square, order));
        }
        if (count < QUADS_A_TILE) memset(to + count * SQUARE, 128, (QUADS_A_TILE - count) * SQUARE);
    }
}

// Costs are looked up byte by byte, 32 codes at a time, and summed by the instruction for absolute differences.
AVX2 uint64_t avx2_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift) {
    const __m256i low0 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table->cost_low));
    const __m256i low1 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table->cost_low + 16)));
    const __m256i high0 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table->cost_high));
    const __m256i high1 = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table->cost_high + 16)));
    const __m256i centre = _mm256_set1_epi8(KV_CENTRE), last = _mm256_set1_epi8(KV_ESCAPE), zero = _mm256_setzero_si256();
    const __m128i places = _mm_cvtsi32_si128((int)shift);
    __m256i low = zero, high = zero;
    uint64_t escapes = 0;
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i a = _mm256_sra_epi16(_mm256_loadu_si256((const __m256i *)(codes + i)), places);
        __m256i b = _mm256_sra_epi16(_mm256_loadu_si256((const __m256i *)(codes + i + 16)), places);
        // Saturated; the order of codes does not matter. What is not 0…30 (unsigned) escapes.
        __m256i symbol = _mm256_add_epi8(_mm256_packs_epi16(a, b), centre);
        symbol = _mm256_min_epu8(symbol, last);
        escapes += (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(symbol, last)));
        __m256i upper = _mm256_slli_epi16(symbol, 3); // bit 4 of each byte becomes its sign
        low = _mm256_add_epi64(low, _mm256_sad_epu8(_mm256_blendv_epi8(_mm256_shuffle_epi8(low0, symbol),
                                                                       _mm256_shuffle_epi8(low1, symbol), upper), zero));
        high = _mm256_add_epi64(high, _mm256_sad_epu8(_mm256_blendv_epi8(_mm256_shuffle_epi8(high0, symbol),
                                                                         _mm256_shuffle_epi8(high1, symbol), upper), zero));
    }
    uint64_t lows[4], highs[4];
    _mm256_storeu_si256((__m256i *)lows, low);
    _mm256_storeu_si256((__m256i *)highs, high);
    uint64_t cost = lows[0] + lows[1] + lows[2] + lows[3] + 256 * (highs[0] + highs[1] + highs[2] + highs[3]);
    cost += 64 * (shift * (i - escapes) + 16 * escapes);
    return cost + scalar_cost(table, codes + i, count - i, shift);
}

// 16 columns × up to 6 tokens: products of bytes are summed in pairs to 16 bits in registers, and every `depth` quads to 32 bits.
static inline __attribute__((always_inline)) AVX2 void block(const int tokens, const uint8_t *tile, const kv_term *terms,
                                                             size_t term_count, uint32_t slab, uint32_t slab_tokens,
                                                             uint32_t first, float *target, size_t stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i wide[6][2];
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) wide[t][0] = wide[t][1] = _mm256_setzero_si256();
    for (size_t i = 0; i < term_count; i++) {
        kv_term term = terms[i];
        __m128i shift = _mm_cvtsi32_si128(term.shift);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++)
                // The digits are 128 too large each.
                wide[t][h] = _mm256_sub_epi32(_mm256_sll_epi32(wide[t][h], shift),
                                              _mm256_set1_epi32(128 * term.sums[slab * KV_SLAB + first + t]));
        const uint8_t *digits = tile + (size_t)term.first * KV_TILE * KV_QUAD;
        const int8_t *codes = term.codes + ((size_t)slab * KV_SLAB * term.quads + first) * KV_QUAD;
        for (uint32_t q = 0; q < term.quads;) {
            uint32_t end = term.quads - q < term.depth ? term.quads : q + term.depth;
            __m256i sum[6][2];
#pragma clang loop unroll(full)
            for (int t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
            for (; q < end; q++, digits += KV_TILE * KV_QUAD, codes += slab_tokens * KV_QUAD) {
                __m256i left = _mm256_loadu_si256((const __m256i *)digits);
                __m256i right = _mm256_loadu_si256((const __m256i *)(digits + 32));
#pragma clang loop unroll(full)
                for (int t = 0; t < tokens; t++) {
                    int32_t quad;
                    memcpy(&quad, codes + KV_QUAD * t, 4);
                    __m256i code = _mm256_set1_epi32(quad);
                    sum[t][0] = _mm256_add_epi16(sum[t][0], _mm256_maddubs_epi16(left, code));
                    sum[t][1] = _mm256_add_epi16(sum[t][1], _mm256_maddubs_epi16(right, code));
                }
            }
#pragma clang loop unroll(full)
            for (int t = 0; t < tokens; t++)
                for (int h = 0; h < 2; h++) wide[t][h] = _mm256_add_epi32(wide[t][h], _mm256_madd_epi16(sum[t][h], ones));
        }
        if (term.scale == 0) continue;
        __m256 scale = _mm256_set1_ps(term.scale);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++) {
                float *to = target + t * stride + 8 * h;
                _mm256_storeu_ps(
                    to, _mm256_add_ps(_mm256_loadu_ps(to), _mm256_mul_ps(_mm256_cvtepi32_ps(wide[t][h]), scale)));
                wide[t][h] = _mm256_setzero_si256();
            }
    }
}

#define BLOCK(TOKENS)                                                                                                    \
    AVX2 static void block_##TOKENS(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab,         \
                                    uint32_t slab_tokens, uint32_t first, float *target, size_t stride) {                \
        block(TOKENS, tile, terms, term_count, slab, slab_tokens, first, target, stride);                                \
    }
BLOCK(1)
BLOCK(2)
BLOCK(4)
BLOCK(6)

AVX2 static void avx2_inverse(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab, uint32_t tokens,
                              uint32_t first, uint32_t count, float *target, size_t stride, kv_ahead *ahead) {
    (void)ahead;
    for (int half = 0; half < 2; half++) {
        const uint8_t *at = tile + half * 64;
        float *to = target + half * 16;
        for (uint32_t t = 0; t < count;) {
            uint32_t left = count - t, step = left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            (step == 6   ? block_6
             : step == 4 ? block_4
             : step == 2 ? block_2
                         : block_1)(at, terms, term_count, slab, tokens, first + t, to + t * stride, stride);
            t += step;
        }
    }
}

static const kv_kernels avx2_table = {"avx2",    7,                 avx2_to_float, avx2_from_float,  avx2_inverse,
                                      avx2_turn, avx2_scale_offset, avx2_multiply, avx2_rotate,   avx2_rans_decode, avx2_cost};

const kv_kernels *kv_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") ? &avx2_table
                                                                                                            : NULL;
}
#else
const kv_kernels *kv_avx2(void) { return NULL; }
#endif
