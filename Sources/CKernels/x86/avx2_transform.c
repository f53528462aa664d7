#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

// Half a tile, 16 columns, × up to 6 tokens from `done` on: products of bytes are summed in pairs to 16 bits in registers, and
// every `depth` quads to 32 bits.
static inline __attribute__((always_inline)) AVX2 void block(const int tokens, const kv_inverse_job *job, uint32_t done,
                                                             int half) {
    const uint8_t *tile = job->tile + 64 * half;
    const kv_term *terms = job->terms;
    const size_t term_count = job->term_count, stride = job->stride;
    const uint32_t slab = job->slab, slab_tokens = job->tokens, first = job->first + done;
    float *target = job->target + done * stride + 16 * half;
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

#define BLOCK(TOKENS)                                                                                     \
    AVX2 static void block_##TOKENS(const kv_inverse_job *job, uint32_t done, int half) {                 \
        block(TOKENS, job, done, half);                                                                   \
    }
BLOCK(1)
BLOCK(2)
BLOCK(4)
BLOCK(6)

void avx2_inverse(const kv_inverse_job *job) {
    for (int half = 0; half < 2; half++)
        for (uint32_t done = 0; done < job->count;) {
            uint32_t left = job->count - done, step = left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            (step == 6 ? block_6 : step == 4 ? block_4 : step == 2 ? block_2 : block_1)(job, done, half);
            done += step;
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
#endif
