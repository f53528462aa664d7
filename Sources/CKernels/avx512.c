#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))

// 32 columns × TOKENS tokens of int32 sums in registers; one instruction multiplies and adds 64 digits.
VNNI static inline __attribute__((always_inline)) void block(const int tokens, const uint8_t *tile, const kv_term *terms,
                                                             size_t term_count, uint32_t slab, uint32_t slab_tokens,
                                                             uint32_t first, float *target, size_t stride,
                                                             kv_ahead *ahead) {
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

#define BLOCK(TOKENS)                                                                                                    \
    VNNI static void block_##TOKENS(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab,         \
                                    uint32_t slab_tokens, uint32_t first, float *target, size_t stride,                  \
                                    kv_ahead *ahead) {                                                                   \
        block(TOKENS, tile, terms, term_count, slab, slab_tokens, first, target, stride, ahead);                         \
    }
BLOCK(1)
BLOCK(4)
BLOCK(12)

VNNI static void vnni_inverse(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab, uint32_t tokens,
                              uint32_t first, uint32_t count, float *target, size_t stride, kv_ahead *ahead) {
    kv_ahead nothing = {0};
    if (!ahead) ahead = &nothing;
    for (uint32_t t = 0; t < count;) {
        uint32_t left = count - t, step = left >= 12 ? 12 : left >= 4 ? 4 : 1;
        (step == 12  ? block_12
         : step == 4 ? block_4
                     : block_1)(tile, terms, term_count, slab, tokens, first + t, target + t * stride, stride, ahead);
        t += step;
    }
}

// Squares of 4 × 4 bytes are turned in their 16 bytes, then 4 × 4 of them among registers.
VNNI static void vnni_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places,
                           size_t tiles, uint8_t *turned) {
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

// As avx2_rans_decode, 16 states to a register.
VNNI static int vnni_rans_decode(const uint8_t *words, size_t word_count, const uint8_t *bits, size_t bits_length,
                                 const kv_component *components, size_t count, size_t tokens, int16_t *codes,
                                 uint16_t *largest) {
    if (word_count < 2 * KV_LANES) return -1;
    const uint8_t *next = words + 4 * KV_LANES, *end = words + 2 * word_count;
    kv_bit_reader reader = {bits, bits + bits_length, 0, 0};
    const __m512i low12 = _mm512_set1_epi32(0xFFF), one = _mm512_set1_epi32(1), lower = _mm512_set1_epi32(1 << 16);
    const __m512i centre = _mm512_set1_epi32(KV_CENTRE), escape = _mm512_set1_epi32(KV_ESCAPE - KV_CENTRE);
    __m512i state = _mm512_loadu_si512(words);
    for (size_t k = 0; k < count; k++, codes += tokens) {
        if (!components[k].table) {
            memset(codes, 0, tokens * sizeof *codes);
            largest[k] = 0;
            continue;
        }
        const uint32_t *slots = components[k].table->slot;
        __m512i most = _mm512_setzero_si512();
        __mmask16 escapes = 0;
        for (size_t t = 0; t < tokens; t += KV_LANES) {
            __mmask16 active = tokens - t < KV_LANES ? (__mmask16)((1u << (tokens - t)) - 1) : 0xFFFF;
            __m512i entry = _mm512_i32gather_epi32(_mm512_and_si512(state, low12), slots, 4);
            __m512i x = _mm512_add_epi32(
                _mm512_mullo_epi32(_mm512_add_epi32(_mm512_and_si512(entry, low12), one), _mm512_srli_epi32(state, 12)),
                _mm512_and_si512(_mm512_srli_epi32(entry, 12), low12));
            __mmask16 refill = _mm512_mask_cmplt_epu32_mask(active, x, lower);
            unsigned taken = (unsigned)__builtin_popcount(refill);
            if ((size_t)(end - next) < 2 * taken) return -1;
            __m256i fresh = _mm256_maskz_loadu_epi16((__mmask16)((1u << taken) - 1), next);
            next += 2 * taken;
            __m512i word = _mm512_maskz_expand_epi32(refill, _mm512_cvtepu16_epi32(fresh));
            x = _mm512_mask_or_epi32(x, refill, _mm512_slli_epi32(x, 16), word);
            state = _mm512_mask_mov_epi32(state, active, x);
            __m512i code = _mm512_sub_epi32(_mm512_srli_epi32(entry, 24), centre);
            escapes |= _mm512_mask_cmpeq_epi32_mask(active, code, escape);
            most = _mm512_mask_max_epi32(most, active, most, _mm512_abs_epi32(code));
            if (active == 0xFFFF)
                _mm256_storeu_si256((__m256i *)(codes + t), _mm512_cvtepi32_epi16(code));
            else
                _mm256_mask_storeu_epi16(codes + t, active, _mm512_cvtepi32_epi16(code));
        }
        if (escapes || components[k].low_bits || components[k].doublings) {
            if (kv_finish_codes(&reader, components[k], tokens, codes, largest + k)) return -1;
        } else {
            largest[k] = (uint16_t)_mm512_reduce_max_epi32(most);
        }
    }
    if (next != end || reader.next != reader.end || reader.filled >= 8 || reader.pool) return -1;
    return _mm512_cmpneq_epi32_mask(state, lower) ? -1 : 0;
}

static const kv_kernels vnni_table = {"avx512-vnni", 8,           avx2_to_float,    avx2_from_float, vnni_inverse, vnni_turn,
                                      avx2_scale_offset, avx2_multiply, avx2_rotate, vnni_rans_decode, avx2_cost};

const kv_kernels *kv_avx512(void) {
    return kv_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("popcnt")
               ? &vnni_table
               : NULL;
}
#else
const kv_kernels *kv_avx512(void) { return NULL; }
#endif
