// States of the entropy coder that fall short take words, in registers of eight.
#ifndef KVTC_WORDS_H
#define KVTC_WORDS_H

#include "../portable/states.h"
#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>
#define AVX2_POPCNT __attribute__((target("avx2,popcnt")))

typedef struct {
    const uint8_t *next, *end;
} word_reader;

// Components that are decoded together, a lane each, and their codes of eight rows until those are complete.
typedef struct {
    int32_t table[KV_MOST_LANES], low_bits[KV_MOST_LANES], doublings[KV_MOST_LANES];
    int32_t active[KV_MOST_LANES];  // −1 where a lane has a component, else 0
    int16_t strip[8][KV_MOST_LANES];
    uint16_t most[KV_MOST_LANES];   // magnitudes
    int extra;                      // not 0: some component has low bits or doublings
} __attribute__((aligned(64))) x86_set;

void avx2_set_open(const kv_rans_component *, size_t count, x86_set *);
// Puts up to eight rows of a strip, from row `first` on, where the components' codes [component][stride] belong.
void avx2_set_store(x86_set *, const kv_rans_component *, size_t count, size_t first, size_t rows, size_t stride,
                    int16_t *codes);

// Eight words in the order in which the lanes of a mask take them: lane i gets word popcount(mask & (2^i − 1)).
extern const uint8_t avx2_word_order[256][8];

// What a symbol leaves of eight states, and its entry.
AVX2_POPCNT static inline __m256i avx2_symbol(__m256i state, const void *slots, __m256i place, __m256i *entry) {
    const __m256i low12 = _mm256_set1_epi32(0xFFF), one = _mm256_set1_epi32(1);
    *entry = _mm256_i32gather_epi32((const int *)slots, _mm256_add_epi32(_mm256_and_si256(state, low12), place), 4);
    return _mm256_add_epi32(
        _mm256_mullo_epi32(_mm256_add_epi32(_mm256_and_si256(*entry, low12), one), _mm256_srli_epi32(state, 12)),
        _mm256_and_si256(_mm256_srli_epi32(*entry, 12), low12));
}

// Active states below the lower end take a word each; not 0 where those run out.
AVX2_POPCNT static inline int avx2_refill(__m256i *state, __m256i active, word_reader *reader) {
    __m256i small = _mm256_cmpeq_epi32(_mm256_srli_epi32(*state, 16), _mm256_setzero_si256());
    small = _mm256_and_si256(small, active);
    unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(small));
    size_t taken = 2 * (size_t)__builtin_popcount(mask), left = (size_t)(reader->end - reader->next);
    __m128i raw;
    if (left >= 16) {
        raw = _mm_loadu_si128((const __m128i *)reader->next);
    } else {
        uint8_t bytes[16] = {0};
        if (left < taken) return 1;
        memcpy(bytes, reader->next, left);
        raw = _mm_loadu_si128((const __m128i *)bytes);
    }
    reader->next += taken;
    __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)avx2_word_order[mask]));
    __m256i words = _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(raw), lanes);
    *state = _mm256_blendv_epi8(*state, _mm256_or_si256(_mm256_slli_epi32(*state, 16), words), small);
    return 0;
}
#endif

#endif
