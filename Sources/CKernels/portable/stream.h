// Shared by the decoders of streams of every tier.
#ifndef KVTC_STREAM_H
#define KVTC_STREAM_H

#include "states.h"

// Raw bits of an entropy-coded stream, lowest first.
typedef struct {
    const uint8_t *next, *end;
    uint64_t pool;
    unsigned filled;
} kv_bit_reader;

// Codes whose symbols (less the centre) are in `row` get their raw bits; −1 where those end or a code leaves 16 bits.
int kv_finish_codes(kv_bit_reader *, kv_component, size_t tokens, int16_t *row, uint16_t *largest);

#endif
