#include "../portable/states.h"
#include "scalar.h"

uint64_t scalar_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift) {
    uint64_t cost = 0;
    size_t escapes = 0;
    for (size_t i = 0; i < count; i++) {
        int symbol = kv_symbol_of(codes[i], shift);
        escapes += symbol == KV_ESCAPE;
        cost += table->cost[symbol];
    }
    return cost + 64 * (shift * (uint64_t)(count - escapes) + 16 * (uint64_t)escapes);
}

// A state below the lower end takes a word; not 0 where those run out.
static inline int refill(uint32_t *state, const uint8_t **next, const uint8_t *end) {
    if (*state >= KV_LOWER) return 0;
    if (end - *next < 2) return -1;
    *state = *state << 16 | (*next)[0] | (uint32_t)(*next)[1] << 8;
    *next += 2;
    return 0;
}

int scalar_rans_decode(const kv_rans_chunk *chunk, int16_t *codes, uint16_t *largest) {
    const size_t lanes = chunk->lanes, rows = chunk->rows;
    const uint8_t *next = chunk->words, *end = next + 2 * chunk->word_count;
    if (chunk->word_count < 2 * lanes) return -1;
    uint32_t state[KV_MOST_LANES];
    for (size_t l = 0; l < lanes; l++, next += 4)
        state[l] = next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16 | (uint32_t)next[3] << 24;
    for (size_t first = 0; first < chunk->count; first += lanes) {
        const kv_rans_component *components = chunk->components + first;
        const size_t count = chunk->count - first < lanes ? chunk->count - first : lanes;
        int16_t *to[KV_MOST_LANES];
        int most[KV_MOST_LANES] = {0}, extra = 0;
        for (size_t l = 0; l < count; l++) {
            to[l] = codes + components[l].place * rows;
            extra |= components[l].low_bits | components[l].doublings;
        }
        for (size_t row = 0; row < rows; row++) {
            int symbol[KV_MOST_LANES], escapes = 0;
            for (size_t l = 0; l < count; l++) {
                uint32_t x = state[l], entry = chunk->tables[components[l].table].slot[x & (KV_SCALE - 1)];
                state[l] = ((entry & 0xFFF) + 1) * (x >> KV_SCALE_BITS) + (entry >> 12 & 0xFFF);
                if (refill(state + l, &next, end)) return -1;
                symbol[l] = (int)(entry >> 24);
                escapes |= symbol[l] == KV_ESCAPE;
            }
            for (size_t l = 0; l < count; l++) {
                int code = symbol[l] - KV_CENTRE;
                if (extra || escapes) {
                    unsigned raw = symbol[l] == KV_ESCAPE ? 16 : components[l].low_bits;
                    int low = (int)(state[l] & ((1u << raw) - 1));
                    state[l] >>= raw;
                    if (refill(state + l, &next, end)) return -1;
                    code = symbol[l] == KV_ESCAPE ? (int16_t)low : code * (1 << raw) + low;
                    code *= 1 << components[l].doublings;
                    if (code != (int16_t)code) return -1;
                }
                int magnitude = code < 0 ? -code : code;
                most[l] = magnitude > most[l] ? magnitude : most[l];
                to[l][row] = (int16_t)code;
            }
        }
        for (size_t l = 0; l < count; l++) largest[components[l].place] = (uint16_t)most[l];
    }
    if (next != end) return -1;
    for (size_t l = 0; l < lanes; l++)
        if (state[l] != KV_LOWER) return -1;
    return 0;
}
