#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

// 32 columns × `tokens` tokens, from `done` on, of int32 sums in registers; one instruction multiplies and adds 64 digits.
VNNI static inline __attribute__((always_inline)) void block(const int tokens, const kv_inverse_job *job, uint32_t done,
                                                             kv_ahead *ahead) {
    const uint8_t *tile = job->tile;
    const kv_term *terms = job->terms;
    const size_t term_count = job->term_count, stride = job->stride;
    const uint32_t slab = job->slab, slab_tokens = job->tokens, first = job->first + done;
    float *target = job->target + done * stride;
    __m512i sum[12][2];
    kv_ahead lines = *ahead;
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = _mm512_setzero_si512();
    for (size_t i = 0; i < term_count; i++) {
        kv_term term = terms[i];
        __m128i shift = _mm_cvtsi32_si128(term.shift);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++)
                // The digits are 128 too large each.
                sum[t][h] = _mm512_sub_epi32(_mm512_sll_epi32(sum[t][h], shift),
                                             _mm512_set1_epi32(128 * term.sums[slab * KV_SLAB + first + t]));
        const uint8_t *digits = tile + (size_t)term.first * KV_TILE * KV_QUAD;
        const int8_t *codes = term.codes + ((size_t)slab * KV_SLAB * term.quads + first) * KV_QUAD;
        for (uint32_t q = 0; q < term.quads; q++, digits += KV_TILE * KV_QUAD, codes += slab_tokens * KV_QUAD) {
            // One line among so many products costs nothing; all at once would hold up the loads that they need.
            if (tokens == 12 && lines.next < lines.lines) {
                _mm_prefetch((const char *)(lines.at + lines.next / 16 * lines.stride + lines.next % 16 * 64), _MM_HINT_T1);
                lines.next++;
            }
            __m512i left = _mm512_loadu_si512(digits), right = _mm512_loadu_si512(digits + 64);
#pragma clang loop unroll(full)
            for (int t = 0; t < tokens; t++) {
                int32_t quad;
                memcpy(&quad, codes + KV_QUAD * t, 4);
                __m512i code = _mm512_set1_epi32(quad);
                sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], left, code);
                sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], right, code);
            }
        }
        if (term.scale == 0) continue;
        __m512 scale = _mm512_set1_ps(term.scale);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++) {
                float *to = target + t * stride + 16 * h;
                _mm512_storeu_ps(
                    to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t][h]), scale)));
                sum[t][h] = _mm512_setzero_si512();
            }
    }
    ahead->next = lines.next;
}

#define BLOCK(TOKENS)                                                                                     \
    VNNI static void block_##TOKENS(const kv_inverse_job *job, uint32_t done, kv_ahead *ahead) {          \
        block(TOKENS, job, done, ahead);                                                                  \
    }
BLOCK(1)
BLOCK(4)
BLOCK(12)

void vnni_inverse(const kv_inverse_job *job) {
    kv_ahead nothing = {0}, *ahead = job->ahead ? job->ahead : &nothing;
    for (uint32_t done = 0; done < job->count;) {
        uint32_t left = job->count - done, step = left >= 12 ? 12 : left >= 4 ? 4 : 1;
        (step == 12 ? block_12 : step == 4 ? block_4 : block_1)(job, done, ahead);
        done += step;
    }
}

// Squares of 4 × 4 bytes are turned in their 16 bytes, then 4 × 4 of them among registers.
VNNI void vnni_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                    uint8_t *turned) {
    if (count < QUADS_A_TILE) {
        avx2_turn(packed, quads, first, count, places, tiles, turned);
        return;
    }
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (size_t tile = 0; tile < tiles; tile++, places += QUADS_A_TILE) {
        const uint8_t *at = packed + (tile * quads + first) * TILE_QUAD;
        for (int half = 0; half < 2; half++)
            for (int q = 0; q < QUADS_A_TILE; q += 4) {
                const uint8_t *from = at + q * TILE_QUAD + 64 * half;
                __m512i a = _mm512_shuffle_epi8(_mm512_loadu_si512(from), order);
                __m512i b = _mm512_shuffle_epi8(_mm512_loadu_si512(from + TILE_QUAD), order);
                __m512i c = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 2 * TILE_QUAD), order);
                __m512i d = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 3 * TILE_QUAD), order);
                __m512i ab0 = _mm512_shuffle_i32x4(a, b, 0x88), ab1 = _mm512_shuffle_i32x4(a, b, 0xDD);
                __m512i cd0 = _mm512_shuffle_i32x4(c, d, 0x88), cd1 = _mm512_shuffle_i32x4(c, d, 0xDD);
                uint8_t *to = turned + 16 * q;
                const uint32_t *place = places + 4 * half;
                _mm512_storeu_si512(to + place[0] * TILE_QUAD, _mm512_shuffle_i32x4(ab0, cd0, 0x88));
                _mm512_storeu_si512(to + place[1] * TILE_QUAD, _mm512_shuffle_i32x4(ab1, cd1, 0x88));
                _mm512_storeu_si512(to + place[2] * TILE_QUAD, _mm512_shuffle_i32x4(ab0, cd0, 0xDD));
                _mm512_storeu_si512(to + place[3] * TILE_QUAD, _mm512_shuffle_i32x4(ab1, cd1, 0xDD));
            }
    }
}
#endif
