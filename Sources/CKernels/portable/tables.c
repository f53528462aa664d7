#include "states.h"

#include <math.h>

int kv_table_make(const uint16_t *frequency, kv_table *table) {
    uint32_t start = 0;
    for (int s = 0; s < KV_SYMBOLS; s++) {
        uint32_t f = frequency[s];
        if (f > KV_SCALE - start) return -1;
        table->frequency[s] = (uint16_t)f;
        table->start[s] = (uint16_t)start;
        table->cost[s] = f ? (uint16_t)lrint(64.0 * (KV_SCALE_BITS - log2((double)f))) : UINT16_MAX;
        table->cost_low[s] = (uint8_t)table->cost[s];
        table->cost_high[s] = (uint8_t)(table->cost[s] >> 8);
        for (uint32_t i = 0; i < f; i++) table->slot[start + i] = (uint32_t)s << 24 | i << 12 | (f - 1);
        start += f;
    }
    return start == KV_SCALE ? 0 : -1;
}

void kv_histogram(const int16_t *codes, size_t count, unsigned shift, uint64_t *counts) {
    for (size_t i = 0; i < count; i++) counts[kv_symbol_of(codes[i], shift)]++;
}
