// Entropy-coded streams of version 1 of the transform section, which are decoded for ever and encoded for tests: 16 states,
// lane = token mod 16, all components one after another, raw low bits apart.
#ifndef KVTC_KV_STREAM_H
#define KVTC_KV_STREAM_H

#include "kv_tables.h"

enum { KV_STREAM_LANES = 16 };

// A component in a stream.
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

// Memory for a stream, and how much of it was taken.
typedef struct {
    uint16_t *words;
    size_t words_capacity, word_count;  // 16-bit words
    uint8_t *bits;
    size_t bits_capacity, bits_length;  // bytes
} kv_stream_buffer;
// Codes [count][tokens] of the components that have a table. Returns 0, or −1 where the memory does not suffice.
int kv_stream_encode(const int16_t *codes, const kv_component *components, size_t count, size_t tokens, kv_stream_buffer *);

#endif
