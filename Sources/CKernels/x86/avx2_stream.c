#include "../portable/stream.h"
#include "words.h"

#if defined(__x86_64__)
// One step of eight states: the symbols' entries, and −1 (as 1) in the return where the words run out.
AVX2_POPCNT static inline int step(__m256i *state, const uint32_t *slots, __m256i active, word_reader *reader, __m256i *entry) {
    __m256i x = avx2_symbol(*state, slots, _mm256_setzero_si256(), entry);
    *state = _mm256_blendv_epi8(*state, x, active);
    return avx2_refill(state, active, reader);
}

AVX2_POPCNT int avx2_decode_stream(const kv_stream *stream, int16_t *codes, uint16_t *largest) {
    if (stream->word_count < 2 * KV_STREAM_LANES) return -1;
    const kv_component *components = stream->components;
    const size_t count = stream->count, tokens = stream->tokens;
    const uint8_t *words = stream->words;
    word_reader reader = {words + 4 * KV_STREAM_LANES, words + 2 * stream->word_count};
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
        for (size_t t = 0; t < tokens; t += KV_STREAM_LANES) {
            __m256i rest = _mm256_set1_epi32(tokens - t < KV_STREAM_LANES ? (int)(tokens - t) : KV_STREAM_LANES);
            __m256i first, second;
            if (step(&left, slots, _mm256_cmpgt_epi32(rest, lane), &reader, &first) |
                step(&right, slots, _mm256_cmpgt_epi32(rest, _mm256_add_epi32(lane, eight)), &reader, &second))
                return -1;
            __m256i packed = _mm256_packs_epi32(_mm256_srli_epi32(first, 24), _mm256_srli_epi32(second, 24));
            __m256i code = _mm256_sub_epi16(_mm256_permute4x64_epi64(packed, 0xD8), centre);
            if (tokens - t >= KV_STREAM_LANES) {
                _mm256_storeu_si256((__m256i *)(codes + t), code);
            } else {
                int16_t some[KV_STREAM_LANES];
                _mm256_storeu_si256((__m256i *)some, code);
                // Lanes without a token don't count.
                for (size_t i = tokens - t; i < KV_STREAM_LANES; i++) some[i] = 0;
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
#endif
