#include "words.h"

#if defined(__x86_64__)
// Sixteen states, and what their components need.
typedef struct {
    __m512i table, low_bits, doublings;
    __mmask16 active;
} half;

VNNI static inline half half_of(const x86_set *set, int i) {
    return (half){_mm512_load_si512(set->table + 16 * i), _mm512_load_si512(set->low_bits + 16 * i),
                  _mm512_load_si512(set->doublings + 16 * i),
                  _mm512_cmplt_epi32_mask(_mm512_load_si512(set->active + 16 * i), _mm512_setzero_si512())};
}

// Active states below the lower end take a word each; not 0 where those run out.
VNNI static inline int refill(__m512i *state, __mmask16 active, word_reader *reader) {
    __mmask16 small = _mm512_mask_cmplt_epu32_mask(active, *state, _mm512_set1_epi32(KV_LOWER));
    unsigned taken = (unsigned)__builtin_popcount(small);
    __m256i fresh;
    size_t left = (size_t)(reader->end - reader->next);
    if (left >= 32) {
        fresh = _mm256_loadu_si256((const __m256i *)reader->next);
    } else {
        if (left < 2 * taken) return 1;
        fresh = _mm256_maskz_loadu_epi16((__mmask16)((1u << taken) - 1), reader->next);
    }
    reader->next += 2 * taken;
    __m512i word = _mm512_maskz_expand_epi32(small, _mm512_cvtepu16_epi32(fresh));
    *state = _mm512_mask_or_epi32(*state, small, _mm512_slli_epi32(*state, 16), word);
    return 0;
}

// One symbol of sixteen states.
VNNI static inline int decode_symbols(__m512i *state, const half *lanes, const void *slots, word_reader *reader,
                                      __m512i *symbol) {
    const __m512i low12 = _mm512_set1_epi32(0xFFF), one = _mm512_set1_epi32(1);
    __m512i entry = _mm512_i32gather_epi32(_mm512_add_epi32(_mm512_and_si512(*state, low12), lanes->table), slots, 4);
    __m512i product =
        _mm512_mullo_epi32(_mm512_add_epi32(_mm512_and_si512(entry, low12), one), _mm512_srli_epi32(*state, 12));
    *state = _mm512_mask_add_epi32(*state, lanes->active, product, _mm512_and_si512(_mm512_srli_epi32(entry, 12), low12));
    *symbol = _mm512_srli_epi32(entry, 24);
    return refill(state, lanes->active, reader);
}

// The codes of sixteen symbols that have low bits, escape or count twice.
VNNI static inline int finish_codes(__m512i *state, const half *lanes, word_reader *reader, __m512i symbol, __m512i *code) {
    __mmask16 escapes = _mm512_mask_cmpeq_epi32_mask(lanes->active, symbol, _mm512_set1_epi32(KV_ESCAPE));
    __m512i raw = _mm512_mask_mov_epi32(lanes->low_bits, escapes, _mm512_set1_epi32(16));
    __m512i low = _mm512_andnot_si512(_mm512_sllv_epi32(_mm512_set1_epi32(-1), raw), *state);
    *state = _mm512_mask_srlv_epi32(*state, lanes->active, *state, raw);
    if (refill(state, lanes->active, reader)) return 1;
    __m512i whole = _mm512_add_epi32(_mm512_sllv_epi32(*code, lanes->low_bits), low);
    whole = _mm512_mask_srai_epi32(whole, escapes, _mm512_slli_epi32(low, 16), 16);
    *code = _mm512_sllv_epi32(whole, lanes->doublings);
    __m512i cut = _mm512_srai_epi32(_mm512_slli_epi32(*code, 16), 16);
    return _mm512_mask_cmpneq_epi32_mask(lanes->active, *code, cut);
}

// As avx2_rans_decode, 16 states to a register.
VNNI int vnni_rans_decode(const kv_rans_chunk *chunk, int16_t *codes, uint16_t *largest) {
    const size_t lanes = chunk->lanes, rows = chunk->rows;
    if (chunk->word_count < 2 * lanes) return -1;
    const __m512i centre = _mm512_set1_epi32(KV_CENTRE), last = _mm512_set1_epi32(KV_ESCAPE);
    const __m512i lower = _mm512_set1_epi32(KV_LOWER);
    word_reader reader = {chunk->words + 4 * lanes, chunk->words + 2 * chunk->word_count};
    const unsigned stored = (unsigned)((1ull << lanes) - 1);
    __m512i left = _mm512_mask_loadu_epi32(lower, (__mmask16)stored, chunk->words);
    __m512i right = _mm512_mask_loadu_epi32(lower, (__mmask16)(stored >> 16), chunk->words + 64);
    x86_set set;
    for (size_t first = 0; first < chunk->count; first += lanes) {
        const kv_rans_component *components = chunk->components + first;
        const size_t count = chunk->count - first < lanes ? chunk->count - first : lanes;
        avx2_set_open(components, count, &set);
        const half lower_half = half_of(&set, 0), upper_half = half_of(&set, 1);
        for (size_t row = 0; row < rows; row += 8) {
            size_t some = rows - row < 8 ? rows - row : 8;
            for (size_t r = 0; r < some; r++) {
                __m512i a, b = _mm512_setzero_si512();
                if (decode_symbols(&left, &lower_half, chunk->tables->slot, &reader, &a)) return -1;
                if (upper_half.active && decode_symbols(&right, &upper_half, chunk->tables->slot, &reader, &b)) return -1;
                __m512i first_codes = _mm512_sub_epi32(a, centre), second_codes = _mm512_sub_epi32(b, centre);
                if (set.extra || _mm512_mask_cmpeq_epi32_mask(lower_half.active, a, last) |
                                     _mm512_mask_cmpeq_epi32_mask(upper_half.active, b, last)) {
                    if (finish_codes(&left, &lower_half, &reader, a, &first_codes)) return -1;
                    if (finish_codes(&right, &upper_half, &reader, b, &second_codes)) return -1;
                }
                _mm256_store_si256((__m256i *)set.strip[r], _mm512_cvtepi32_epi16(first_codes));
                _mm256_store_si256((__m256i *)set.strip[r] + 1, _mm512_cvtepi32_epi16(second_codes));
            }
            avx2_set_store(&set, components, count, row, some, rows, codes);
        }
        for (size_t l = 0; l < count; l++) largest[components[l].place] = set.most[l];
    }
    if (reader.next != reader.end) return -1;
    return _mm512_cmpneq_epi32_mask(left, lower) | _mm512_cmpneq_epi32_mask(right, lower) ? -1 : 0;
}
#endif
