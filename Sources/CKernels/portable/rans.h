// Shared by the entropy coder and the decoders of every tier.
#ifndef KVTC_RANS_H
#define KVTC_RANS_H

#include "../include/kv_rans.h"

// States lie in KV_LOWER…2^32 − 1; a decoder whose states don't end at KV_LOWER has read something else than was coded.
enum { KV_SCALE = 1 << KV_SCALE_BITS, KV_LOWER = 1 << 16 };

static inline int kv_symbol_of(int code, unsigned shift) {
    int high = code >> shift;
    return high >= -KV_CENTRE && high < KV_ESCAPE - KV_CENTRE ? high + KV_CENTRE : KV_ESCAPE;
}

// Raw bits of an entropy-coded stream, lowest first.
typedef struct {
    const uint8_t *next, *end;
    uint64_t pool;
    unsigned filled;
} kv_bit_reader;

// Codes whose symbols (less the centre) are in `row` get their raw bits; −1 where those end or a code leaves 16 bits.
int kv_finish_codes(kv_bit_reader *, kv_component, size_t tokens, int16_t *row, uint16_t *largest);

#endif
