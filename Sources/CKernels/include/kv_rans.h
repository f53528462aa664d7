// Entropy coding: range asymmetric numeral systems (Duda, arXiv 1311.2540) with states of 32 bits, renormalised by 16-bit
// words, 12-bit frequencies. A code takes one table look-up, one multiplication and at most one word, whatever its alphabet;
// low bits that no table is worth take a shift and at most another word.
//
// Components are coded in chunks that know nothing of each other, so that as many threads, or warps, can decode a page as
// it has chunks. In each up to 32 states are interleaved (Giesen, arXiv 1402.3392), a component each: however many rows there
// are, all states have work.
#ifndef KVTC_KV_RANS_H
#define KVTC_KV_RANS_H

#include "kv_stream.h"

// A component of a chunk.
typedef struct {
    uint32_t place;            // among all components: its codes are rows · place codes from the first one
    uint8_t table, low_bits;   // low bits that are not in the symbols, at most 10
    uint8_t doublings;         // decoded codes count times 2^doublings
} kv_rans_component;

enum { KV_MOST_LANES = 32 };
// Components that are coded together, `lanes` at a time: all rows of those, then all rows of the next.
typedef struct {
    const kv_table *tables;
    const kv_rans_component *components;
    size_t count, rows;
    unsigned lanes;            // 1…KV_MOST_LANES, the states
    const uint8_t *words;      // 16-bit words, lowest byte first, states at the start; they need no alignment
    size_t word_count;
} kv_rans_chunk;

typedef struct {
    // The codes of a chunk's components and the largest |code| of each, both at the component's place. Returns 0; −1 where the
    // words end early or leave something over, states don't come back to the start, or a code leaves 16 bits.
    int (*decode)(const kv_rans_chunk *, int16_t *codes, uint16_t *largest);
    // The same of a stream of version 1, which has its components in order.
    int (*decode_stream)(const kv_stream *, int16_t *codes, uint16_t *largest);
    // Exact cost in 1/64 bit of one component's codes with `shift` raw low bits each.
    uint64_t (*cost)(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
} kv_rans_kernels;

// Codes a chunk (whose words are not looked at) into the end of `words`; returns how many it took, or 0 where there are too few:
// 2 · (lanes + rows · count) always suffice. `doublings` are the caller's.
size_t kv_rans_encode(const kv_rans_chunk *, const int16_t *codes, uint16_t *words, size_t capacity);
// The best tier's cost.
uint64_t kv_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);

#endif
