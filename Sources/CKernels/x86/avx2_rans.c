#include "../portable/rans.h"
#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>
#define AVX2_POPCNT __attribute__((target("avx2,popcnt")))

// Eight words in the order in which the lanes of a mask take them: lane i gets word popcount(mask & (2^i − 1)).
#define LANE(M, I) __builtin_popcount((M) & ((1u << (I)) - 1))
#define ROW(M) {LANE(M, 0), LANE(M, 1), LANE(M, 2), LANE(M, 3), LANE(M, 4), LANE(M, 5), LANE(M, 6), LANE(M, 7)}
#define ROW4(M) ROW(M), ROW((M) + 1), ROW((M) + 2), ROW((M) + 3)
#define ROW16(M) ROW4(M), ROW4((M) + 4), ROW4((M) + 8), ROW4((M) + 12)
#define ROW64(M) ROW16(M), ROW16((M) + 16), ROW16((M) + 32), ROW16((M) + 48)
static const uint8_t order[256][8] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};

typedef struct {
    const uint8_t *next, *end;
} word_reader;

// One step of eight states: the symbols' entries, and −1 (as 1) in the return where the words run out.
AVX2_POPCNT static inline int step(__m256i *state, const uint32_t *slots, __m256i active, word_reader *reader, __m256i *entry) {
    const __m256i low12 = _mm256_set1_epi32(0xFFF), one = _mm256_set1_epi32(1);
    *entry = _mm256_i32gather_epi32((const int *)slots, _mm256_and_si256(*state, low12), 4);
    __m256i x = _mm256_add_epi32(
        _mm256_mullo_epi32(_mm256_add_epi32(_mm256_and_si256(*entry, low12), one), _mm256_srli_epi32(*state, 12)),
        _mm256_and_si256(_mm256_srli_epi32(*entry, 12), low12));
    __m256i small = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
    small = _mm256_and_si256(small, active);
    unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(small));
    size_t taken = 2 * (size_t)__builtin_popcount(mask);
    if (taken) {
        size_t left = (size_t)(reader->end - reader->next);
        if (left < taken) return 1;
        __m128i raw;
        if (left >= 16) {
            raw = _mm_loadu_si128((const __m128i *)reader->next);
        } else {
            uint8_t bytes[16] = {0};
            memcpy(bytes, reader->next, left);
            raw = _mm_loadu_si128((const __m128i *)bytes);
        }
        reader->next += taken;
        __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)order[mask]));
        __m256i words = _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(raw), lanes);
        x = _mm256_blendv_epi8(x, _mm256_or_si256(_mm256_slli_epi32(x, 16), words), small);
    }
    *state = _mm256_blendv_epi8(*state, x, active);
    return 0;
}

AVX2_POPCNT int avx2_rans_decode(const kv_stream *stream, int16_t *codes, uint16_t *largest) {
    if (stream->word_count < 2 * KV_LANES) return -1;
    const kv_component *components = stream->components;
    const size_t count = stream->count, tokens = stream->tokens;
    const uint8_t *words = stream->words;
    word_reader reader = {words + 4 * KV_LANES, words + 2 * stream->word_count};
    kv_bit_reader raw = {stream->bits, stream->bits + stream->bits_length, 0, 0};
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), eight = _mm256_set1_epi32(8);
    const __m256i centre = _mm256_set1_epi16(KV_CENTRE), escape = _mm256_set1_epi16(KV_ESCAPE - KV_CENTRE);
    __m256i left = _mm256_loadu_si256((const __m256i *)words), right = _mm256_loadu_si256((const __m256i *)(words + 32));
    for (size_t k = 0; k < count; k++, codes += tokens) {
        if (!components[k].table) {
            memset(codes, 0, tokens * sizeof *codes);
            largest[k] = 0;
            continue;
        }
        const uint32_t *slots = components[k].table->slot;
        __m256i most = _mm256_setzero_si256(), escapes = most;
        for (size_t t = 0; t < tokens; t += KV_LANES) {
            __m256i rest = _mm256_set1_epi32(tokens - t < KV_LANES ? (int)(tokens - t) : KV_LANES);
            __m256i first, second;
            if (step(&left, slots, _mm256_cmpgt_epi32(rest, lane), &reader, &first) |
                step(&right, slots, _mm256_cmpgt_epi32(rest, _mm256_add_epi32(lane, eight)), &reader, &second))
                return -1;
            __m256i packed = _mm256_packs_epi32(_mm256_srli_epi32(first, 24), _mm256_srli_epi32(second, 24));
            __m256i code = _mm256_sub_epi16(_mm256_permute4x64_epi64(packed, 0xD8), centre);
            if (tokens - t >= KV_LANES) {
                _mm256_storeu_si256((__m256i *)(codes + t), code);
            } else {
                int16_t some[KV_LANES];
                _mm256_storeu_si256((__m256i *)some, code);
                // Lanes without a token don't count.
                for (size_t i = tokens - t; i < KV_LANES; i++) some[i] = 0;
                memcpy(codes + t, some, (tokens - t) * sizeof *codes);
                code = _mm256_loadu_si256((const __m256i *)some);
            }
            escapes = _mm256_or_si256(escapes, _mm256_cmpeq_epi16(code, escape));
            most = _mm256_max_epi16(most, _mm256_abs_epi16(code));
        }
        if (components[k].low_bits || components[k].doublings || !_mm256_testz_si256(escapes, escapes)) {
            if (kv_finish_codes(&raw, components[k], tokens, codes, largest + k)) return -1;
        } else {
            __m128i top = _mm_max_epi16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
            // The smallest of the complements is the complement of the largest.
            __m128i minimum = _mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(-1), top));
            largest[k] = (uint16_t)(0xFFFF - _mm_extract_epi16(minimum, 0));
        }
    }
    if (reader.next != reader.end || raw.next != raw.end || raw.filled >= 8 || raw.pool) return -1;
    const __m256i lower = _mm256_set1_epi32(1 << 16);
    __m256i same = _mm256_and_si256(_mm256_cmpeq_epi32(left, lower), _mm256_cmpeq_epi32(right, lower));
    return _mm256_movemask_epi8(same) == -1 ? 0 : -1;
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
#endif
