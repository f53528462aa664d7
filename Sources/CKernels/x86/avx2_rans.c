#include "words.h"

#if defined(__x86_64__)
// Where a component's table begins, in entries of four bytes from the first one.
enum { TABLE = sizeof(kv_table) / sizeof(uint32_t) };

AVX2 void avx2_set_open(const kv_rans_component *components, size_t count, x86_set *set) {
    memset(set, 0, sizeof *set);
    for (size_t l = 0; l < count; l++) {
        set->table[l] = components[l].table * TABLE;
        set->low_bits[l] = components[l].low_bits;
        set->doublings[l] = components[l].doublings;
        set->extra |= components[l].low_bits | components[l].doublings;
        set->active[l] = -1;
    }
}

// Rows of 16 components become components of eight rows, by three rounds of pairing.
AVX2 static inline void turn(const __m256i *rows, __m256i *columns) {
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi16(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            b[4 * i + 2 * k] = _mm256_unpacklo_epi32(a[4 * i + k], a[4 * i + 2 + k]);
            b[4 * i + 2 * k + 1] = _mm256_unpackhi_epi32(a[4 * i + k], a[4 * i + 2 + k]);
        }
    for (int i = 0; i < 4; i++) {
        columns[2 * i] = _mm256_unpacklo_epi64(b[i], b[4 + i]);
        columns[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[4 + i]);
    }
}

AVX2 void avx2_set_store(x86_set *set, const kv_rans_component *components, size_t count, size_t first, size_t rows,
                         size_t stride, int16_t *codes) {
    for (size_t l = 0; l < count; l += 16) {
        __m256i strip[8], columns[8], *most = (__m256i *)(set->most + l), top = _mm256_load_si256(most);
        for (size_t r = 0; r < rows; r++) {
            strip[r] = _mm256_load_si256((const __m256i *)(set->strip[r] + l));
            top = _mm256_max_epu16(top, _mm256_abs_epi16(strip[r]));
        }
        _mm256_store_si256(most, top);
        for (size_t r = rows; r < 8; r++) strip[r] = _mm256_setzero_si256();
        turn(strip, columns);
        for (size_t i = 0; i < 16 && l + i < count; i++) {
            __m256i column = columns[i % 8];
            __m128i eight = i < 8 ? _mm256_castsi256_si128(column) : _mm256_extracti128_si256(column, 1);
            int16_t *to = codes + components[l + i].place * stride + first;
            if (rows == 8) {
                _mm_storeu_si128((__m128i *)to, eight);
            } else {
                int16_t some[8];
                _mm_storeu_si128((__m128i *)some, eight);
                memcpy(to, some, rows * sizeof *to);
            }
        }
    }
}

// One row of a set in `quarters` registers of eight states. Not 0 where words run out or a code leaves 16 bits.
AVX2_POPCNT static inline __attribute__((always_inline)) int decode_row(__m256i *state, const x86_set *set, int quarters,
                                                                        const void *slots, word_reader *reader,
                                                                        int16_t *codes) {
    const __m256i centre = _mm256_set1_epi32(KV_CENTRE), last = _mm256_set1_epi32(KV_ESCAPE);
    __m256i symbol[4], escapes = _mm256_setzero_si256();
    int failed = 0;
    for (int i = 0; i < quarters; i++) {
        __m256i active = _mm256_load_si256((const __m256i *)set->active + i), entry;
        __m256i x = avx2_symbol(state[i], slots, _mm256_load_si256((const __m256i *)set->table + i), &entry);
        state[i] = _mm256_blendv_epi8(state[i], x, active);
        failed |= avx2_refill(state + i, active, reader);
        symbol[i] = _mm256_srli_epi32(entry, 24);
        escapes = _mm256_or_si256(escapes, _mm256_and_si256(_mm256_cmpeq_epi32(symbol[i], last), active));
    }
    if (failed) return -1;
    __m256i code[4];
    for (int i = 0; i < quarters; i++) code[i] = _mm256_sub_epi32(symbol[i], centre);
    if (set->extra || !_mm256_testz_si256(escapes, escapes)) {
        for (int i = 0; i < quarters; i++) {
            __m256i active = _mm256_load_si256((const __m256i *)set->active + i);
            __m256i bits = _mm256_load_si256((const __m256i *)set->low_bits + i);
            __m256i escape = _mm256_and_si256(_mm256_cmpeq_epi32(symbol[i], last), active);
            __m256i raw = _mm256_blendv_epi8(bits, _mm256_set1_epi32(16), escape);
            __m256i low = _mm256_andnot_si256(_mm256_sllv_epi32(_mm256_set1_epi32(-1), raw), state[i]);
            state[i] = _mm256_srlv_epi32(state[i], raw);
            failed |= avx2_refill(state + i, active, reader);
            __m256i whole = _mm256_srai_epi32(_mm256_slli_epi32(low, 16), 16);
            code[i] = _mm256_blendv_epi8(_mm256_add_epi32(_mm256_sllv_epi32(code[i], bits), low), whole, escape);
            code[i] = _mm256_sllv_epi32(code[i], _mm256_load_si256((const __m256i *)set->doublings + i));
            __m256i same = _mm256_cmpeq_epi32(_mm256_srai_epi32(_mm256_slli_epi32(code[i], 16), 16), code[i]);
            failed |= !_mm256_testc_si256(same, active);
        }
        if (failed) return -1;
    }
    for (int i = 0; i < quarters; i += 2) {
        __m256i packed = _mm256_packs_epi32(code[i], i + 1 < quarters ? code[i + 1] : code[i]);
        _mm256_store_si256((__m256i *)codes + i / 2, _mm256_permute4x64_epi64(packed, 0xD8));
    }
    return 0;
}

AVX2_POPCNT int avx2_rans_decode(const kv_rans_chunk *chunk, int16_t *codes, uint16_t *largest) {
    const size_t lanes = chunk->lanes, rows = chunk->rows;
    const void *slots = chunk->tables->slot;
    if (chunk->word_count < 2 * lanes) return -1;
    word_reader reader = {chunk->words + 4 * lanes, chunk->words + 2 * chunk->word_count};
    uint32_t start[KV_MOST_LANES] __attribute__((aligned(32)));
    for (size_t l = 0; l < KV_MOST_LANES; l++) start[l] = KV_LOWER;
    memcpy(start, chunk->words, 4 * lanes);
    __m256i state[4];
    for (int i = 0; i < 4; i++) state[i] = _mm256_load_si256((const __m256i *)start + i);
    x86_set set;
    for (size_t first = 0; first < chunk->count; first += lanes) {
        const kv_rans_component *components = chunk->components + first;
        const size_t count = chunk->count - first < lanes ? chunk->count - first : lanes;
        const int quarters = (int)((count + 7) / 8);
        avx2_set_open(components, count, &set);
        for (size_t row = 0; row < rows; row += 8) {
            size_t some = rows - row < 8 ? rows - row : 8;
            for (size_t r = 0; r < some; r++) {
                // One loop for each number of registers, so that states stay in them.
                int result = quarters == 4   ? decode_row(state, &set, 4, slots, &reader, set.strip[r])
                             : quarters == 3 ? decode_row(state, &set, 3, slots, &reader, set.strip[r])
                             : quarters == 2 ? decode_row(state, &set, 2, slots, &reader, set.strip[r])
                                             : decode_row(state, &set, 1, slots, &reader, set.strip[r]);
                if (result) return -1;
            }
            avx2_set_store(&set, components, count, row, some, rows, codes);
        }
        for (size_t l = 0; l < count; l++) largest[components[l].place] = set.most[l];
    }
    if (reader.next != reader.end) return -1;
    const __m256i lower = _mm256_set1_epi32(KV_LOWER);
    __m256i same = _mm256_and_si256(_mm256_and_si256(_mm256_cmpeq_epi32(state[0], lower), _mm256_cmpeq_epi32(state[1], lower)),
                                    _mm256_and_si256(_mm256_cmpeq_epi32(state[2], lower), _mm256_cmpeq_epi32(state[3], lower)));
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
