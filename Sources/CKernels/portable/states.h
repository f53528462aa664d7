// Shared by the entropy coder and the decoders of every tier.
#ifndef KVTC_STATES_H
#define KVTC_STATES_H

#include "../include/kv_rans.h"

// States lie in KV_LOWER…2^32 − 1; a decoder whose states don't end at KV_LOWER has read something else than was coded.
enum { KV_SCALE = 1 << KV_SCALE_BITS, KV_LOWER = 1 << 16 };

static inline int kv_symbol_of(int code, unsigned shift) {
    int high = code >> shift;
    return high >= -KV_CENTRE && high < KV_ESCAPE - KV_CENTRE ? high + KV_CENTRE : KV_ESCAPE;
}

#endif
