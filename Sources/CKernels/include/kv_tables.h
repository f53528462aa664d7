// Symbol tables of the entropy coder: 32 frequencies that sum to 4096. Symbols 0…30 are code >> shift plus 15; 31 escapes.
#ifndef KVTC_KV_TABLES_H
#define KVTC_KV_TABLES_H

#include <stddef.h>
#include <stdint.h>

enum { KV_SYMBOLS = 32, KV_SCALE_BITS = 12, KV_ESCAPE = 31, KV_CENTRE = 15 };
typedef struct {
    uint16_t frequency[KV_SYMBOLS], start[KV_SYMBOLS];
    uint16_t cost[KV_SYMBOLS];                           // 1/64 bit, raw low bits not included
    uint8_t cost_low[KV_SYMBOLS], cost_high[KV_SYMBOLS]; // its bytes
    uint32_t slot[1 << KV_SCALE_BITS];                   // symbol << 24 | (slot − start) << 12 | (frequency − 1)
} kv_table;

// Returns 0, or −1 where the frequencies do not sum to 4096.
int kv_table_make(const uint16_t *frequency, kv_table *table);
void kv_histogram(const int16_t *codes, size_t count, unsigned shift, uint64_t *counts);

#endif
