#include "../portable/stream.h"
#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

// As avx2_decode_stream, 16 states to a register.
VNNI int vnni_decode_stream(const kv_stream *stream, int16_t *codes, uint16_t *largest) {
    if (stream->word_count < 2 * KV_STREAM_LANES) return -1;
    const kv_component *components = stream->components;
    const size_t count = stream->count, tokens = stream->tokens;
    const uint8_t *words = stream->words;
    const uint8_t *next = words + 4 * KV_STREAM_LANES, *end = words + 2 * stream->word_count;
    kv_bit_reader reader = {stream->bits, stream->bits + stream->bits_length, 0, 0};
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
        for (size_t t = 0; t < tokens; t += KV_STREAM_LANES) {
            __mmask16 active = tokens - t < KV_STREAM_LANES ? (__mmask16)((1u << (tokens - t)) - 1) : 0xFFFF;
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
#endif
