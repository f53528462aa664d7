#include "states.h"

typedef struct {
    uint16_t *next, *first; // words are put in front: the decoder takes last what is coded first
} word_writer;

// Moves the low word of a state out, so that there is room for more.
static inline int move_out(word_writer *w, uint32_t *x) {
    if (w->next == w->first) return -1;
    *--w->next = (uint16_t)*x;
    *x >>= 16;
    return 0;
}

size_t kv_rans_encode(const kv_rans_chunk *chunk, const int16_t *codes, uint16_t *words, size_t capacity) {
    const size_t lanes = chunk->lanes, rows = chunk->rows;
    word_writer writer = {words + capacity, words};
    uint32_t state[KV_MOST_LANES];
    for (size_t l = 0; l < KV_MOST_LANES; l++) state[l] = KV_LOWER;
    size_t sets = (chunk->count + lanes - 1) / lanes;
    for (size_t set = sets; set-- > 0;) {
        const kv_rans_component *components = chunk->components + set * lanes;
        const size_t count = chunk->count - set * lanes < lanes ? chunk->count - set * lanes : lanes;
        const int16_t *from[KV_MOST_LANES];
        unsigned low_bits = 0;
        for (size_t l = 0; l < count; l++) {
            from[l] = codes + components[l].place * rows;
            low_bits |= components[l].low_bits;
        }
        for (size_t row = rows; row-- > 0;) {
            int symbol[KV_MOST_LANES], escapes = 0;
            for (size_t l = 0; l < count; l++) {
                symbol[l] = kv_symbol_of(from[l][row], components[l].low_bits);
                escapes |= symbol[l] == KV_ESCAPE;
            }
            for (size_t l = low_bits || escapes ? count : 0; l-- > 0;) {
                unsigned raw = symbol[l] == KV_ESCAPE ? 16 : components[l].low_bits;
                if (!raw) continue;
                if (state[l] >> (32 - raw) && move_out(&writer, state + l)) return 0;
                state[l] = state[l] << raw | ((uint32_t)from[l][row] & ((1u << raw) - 1));
            }
            for (size_t l = count; l-- > 0;) {
                const kv_table *table = chunk->tables + components[l].table;
                uint32_t f = table->frequency[symbol[l]];
                // A symbol the table can't code: the caller's tables give every symbol a frequency.
                if (f == 0) return 0;
                if (f < KV_SCALE && state[l] >= f << (32 - KV_SCALE_BITS) && move_out(&writer, state + l)) return 0;
                state[l] = state[l] / f * KV_SCALE + state[l] % f + table->start[symbol[l]];
            }
        }
    }
    if ((size_t)(writer.next - words) < 2 * lanes) return 0;
    for (size_t l = lanes; l-- > 0;) {
        *--writer.next = (uint16_t)(state[l] >> 16);
        *--writer.next = (uint16_t)state[l];
    }
    return (size_t)(words + capacity - writer.next);
}
