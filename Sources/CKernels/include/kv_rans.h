// Entropy coding: interleaved range asymmetric numeral systems (Duda, arXiv 1311.2540; interleaving: Giesen, arXiv 1402.3392)
// of 16 states of 32 bits, renormalised by 16-bit words, 12-bit frequencies. A code takes one table look-up, one
// multiplication and at most one word, whatever its alphabet. Lane = token mod 16.
#ifndef KVTC_KV_RANS_H
#define KVTC_KV_RANS_H

#include <stddef.h>
#include <stdint.h>

// A symbol table: 32 frequencies that sum to 4096. Symbols 0…30 are code >> shift plus 15; 31 escapes.
enum { KV_SYMBOLS = 32, KV_SCALE_BITS = 12, KV_LANES = 16, KV_ESCAPE = 31, KV_CENTRE = 15 };
typedef struct {
    uint16_t frequency[KV_SYMBOLS], start[KV_SYMBOLS];
    uint16_t cost[KV_SYMBOLS];                           // 1/64 bit, raw low bits not included
    uint8_t cost_low[KV_SYMBOLS], cost_high[KV_SYMBOLS]; // its bytes
    uint32_t slot[1 << KV_SCALE_BITS];                   // symbol << 24 | (slot − start) << 12 | (frequency − 1)
} kv_table;

// A component in an entropy-coded stream.
typedef struct {
    const kv_table *table; // NULL: nothing is coded, its codes are 0
    uint8_t low_bits;      // raw low bits of each code
    uint8_t doublings;     // decoded codes count times 2^doublings
} kv_component;

// Codes [components][tokens], as far as the components have a table, and what they are coded into.
typedef struct {
    const kv_component *components;
    size_t count, tokens;
    const uint8_t *words; // 16-bit words, lowest byte first, states at the start; they need no alignment
    size_t word_count;
    const uint8_t *bits;  // raw low bits and escapes, lowest bit first
    size_t bits_length;   // bytes
} kv_stream;

typedef struct {
    // The codes, and the largest |code| of each component. Returns 0; −1 where the stream ends early, leaves something over,
    // its states don't come back to the start, or a code leaves 16 bits.
    int (*decode)(const kv_stream *, int16_t *codes, uint16_t *largest);
    // Exact cost in 1/64 bit of one component's codes with `shift` raw low bits each.
    uint64_t (*cost)(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
} kv_rans_kernels;

// Returns 0, or −1 where the frequencies do not sum to 4096.
int kv_table_make(const uint16_t *frequency, kv_table *table);
// The best tier's cost.
uint64_t kv_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
void kv_histogram(const int16_t *codes, size_t count, unsigned shift, uint64_t *counts);

// Memory for a stream, and how much of it was taken.
typedef struct {
    uint16_t *words;
    size_t words_capacity, word_count;  // 16-bit words
    uint8_t *bits;
    size_t bits_capacity, bits_length;  // bytes
} kv_stream_buffer;
// Codes [count][tokens] of the components that have a table. Returns 0, or −1 where the memory does not suffice.
int kv_rans_encode(const int16_t *codes, const kv_component *components, size_t count, size_t tokens, kv_stream_buffer *);

#endif
