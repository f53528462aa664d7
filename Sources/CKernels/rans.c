// Interleaved range asymmetric numeral systems (Duda, arXiv 1311.2540; interleaving: Giesen, arXiv 1402.3392):
// 16 states of 32 bits, renormalised by 16-bit words, 12-bit frequencies.
#include "tables.h"

#include <math.h>
#include <string.h>

enum { SCALE = 1 << KV_SCALE_BITS };
static const uint32_t LOWER = 1u << 16;

int kv_table_make(const uint16_t *frequency, kv_table *table) {
    uint32_t start = 0;
    for (int s = 0; s < KV_SYMBOLS; s++) {
        uint32_t f = frequency[s];
        if (f > SCALE - start) return -1;
        table->frequency[s] = (uint16_t)f;
        table->start[s] = (uint16_t)start;
        table->cost[s] = f ? (uint16_t)lrint(64.0 * (KV_SCALE_BITS - log2((double)f))) : UINT16_MAX;
        table->cost_low[s] = (uint8_t)table->cost[s];
        table->cost_high[s] = (uint8_t)(table->cost[s] >> 8);
        for (uint32_t i = 0; i < f; i++) table->slot[start + i] = (uint32_t)s << 24 | i << 12 | (f - 1);
        start += f;
    }
    return start == SCALE ? 0 : -1;
}

static inline int symbol_of(int code, unsigned shift) {
    int high = code >> shift;
    return high >= -KV_CENTRE && high < KV_ESCAPE - KV_CENTRE ? high + KV_CENTRE : KV_ESCAPE;
}

uint64_t scalar_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift) {
    uint64_t cost = 0;
    size_t escapes = 0;
    for (size_t i = 0; i < count; i++) {
        int symbol = symbol_of(codes[i], shift);
        escapes += symbol == KV_ESCAPE;
        cost += table->cost[symbol];
    }
    return cost + 64 * (shift * (uint64_t)(count - escapes) + 16 * (uint64_t)escapes);
}

void kv_histogram(const int16_t *codes, size_t count, unsigned shift, uint64_t *counts) {
    for (size_t i = 0; i < count; i++) counts[symbol_of(codes[i], shift)]++;
}

typedef struct {
    uint8_t *next, *end;
    uint64_t pool;
    unsigned filled;
    int full;
} bit_writer;

static void write_bits(bit_writer *w, uint32_t value, unsigned count) {
    w->pool |= (uint64_t)(value & ((1u << count) - 1)) << w->filled;
    w->filled += count;
    while (w->filled >= 8) {
        if (w->next == w->end) w->full = 1;
        else *w->next++ = (uint8_t)w->pool;
        w->pool >>= 8;
        w->filled -= 8;
    }
}

size_t kv_rans_encode(const int16_t *codes, const kv_component *components, size_t count, size_t tokens, uint16_t *words,
                      size_t words_capacity, uint8_t *bits, size_t bits_capacity, size_t *bits_length) {
    bit_writer writer = {bits, bits + bits_capacity, 0, 0, 0};
    for (size_t k = 0; k < count; k++) {
        if (!components[k].table) continue;
        unsigned shift = components[k].low_bits;
        for (size_t t = 0; t < tokens; t++) {
            int code = codes[k * tokens + t];
            if (symbol_of(code, shift) == KV_ESCAPE) write_bits(&writer, (uint16_t)code, 16);
            else if (shift) write_bits(&writer, (uint32_t)code, shift);
        }
    }
    if (writer.filled) write_bits(&writer, 0, 8 - writer.filled);
    *bits_length = (size_t)(writer.next - bits);

    uint32_t state[KV_LANES];
    for (int i = 0; i < KV_LANES; i++) state[i] = LOWER;
    uint16_t *next = words + words_capacity;
    for (size_t k = count; k-- > 0;) {
        const kv_table *table = components[k].table;
        if (!table) continue;
        for (size_t t = tokens; t-- > 0;) {
            int symbol = symbol_of(codes[k * tokens + t], components[k].low_bits);
            uint32_t f = table->frequency[symbol], x = state[t % KV_LANES];
            // A symbol the table can't code: the caller's tables give every symbol a frequency.
            if (f == 0) return SIZE_MAX;
            if (f < SCALE && x >= f << (32 - KV_SCALE_BITS)) {
                if (next == words) return SIZE_MAX;
                *--next = (uint16_t)x;
                x >>= 16;
            }
            state[t % KV_LANES] = x / f * SCALE + x % f + table->start[symbol];
        }
    }
    if (next - words < 2 * KV_LANES || writer.full) return SIZE_MAX;
    for (int i = KV_LANES; i-- > 0;) {
        *--next = (uint16_t)(state[i] >> 16);
        *--next = (uint16_t)state[i];
    }
    size_t length = (size_t)(words + words_capacity - next);
    memmove(words, next, length * 2);
    return length;
}

int kv_finish_codes(kv_bit_reader *reader, kv_component component, size_t tokens, int16_t *row, uint16_t *largest) {
    int most = 0;
    for (size_t t = 0; t < tokens; t++) {
        int code = row[t];
        unsigned raw = code == KV_ESCAPE - KV_CENTRE ? 16 : component.low_bits;
        while (reader->filled < raw) {
            if (reader->next == reader->end) return -1;
            reader->pool |= (uint64_t)*reader->next++ << reader->filled;
            reader->filled += 8;
        }
        int low = (int)(reader->pool & ((1u << raw) - 1));
        reader->pool >>= raw;
        reader->filled -= raw;
        code = code == KV_ESCAPE - KV_CENTRE ? (int16_t)low : code * (1 << component.low_bits) + low;
        code *= 1 << component.doublings;
        if (code != (int16_t)code) return -1;
        int magnitude = code < 0 ? -code : code;
        most = magnitude > most ? magnitude : most;
        row[t] = (int16_t)code;
    }
    *largest = (uint16_t)most;
    return 0;
}

int scalar_rans_decode(const uint8_t *words, size_t word_count, const uint8_t *bits, size_t bits_length,
                       const kv_component *components, size_t count, size_t tokens, int16_t *codes, uint16_t *largest) {
    if (word_count < 2 * KV_LANES) return -1;
    const uint8_t *next = words, *end = words + 2 * word_count;
    uint32_t state[KV_LANES];
    for (int i = 0; i < KV_LANES; i++, next += 4)
        state[i] = next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16 | (uint32_t)next[3] << 24;
    kv_bit_reader reader = {bits, bits + bits_length, 0, 0};
    for (size_t k = 0; k < count; k++, codes += tokens) {
        if (!components[k].table) {
            memset(codes, 0, tokens * sizeof *codes);
            largest[k] = 0;
            continue;
        }
        const uint32_t *slots = components[k].table->slot;
        for (size_t t = 0; t < tokens; t++) {
            uint32_t x = state[t % KV_LANES], entry = slots[x & (SCALE - 1)];
            x = ((entry & 0xFFF) + 1) * (x >> KV_SCALE_BITS) + (entry >> 12 & 0xFFF);
            if (x < LOWER) {
                if (next == end) return -1;
                x = x << 16 | next[0] | (uint32_t)next[1] << 8;
                next += 2;
            }
            state[t % KV_LANES] = x;
            codes[t] = (int16_t)((int)(entry >> 24) - KV_CENTRE);
        }
        if (kv_finish_codes(&reader, components[k], tokens, codes, largest + k)) return -1;
    }
    if (next != end || reader.next != reader.end || reader.filled >= 8 || reader.pool) return -1;
    for (int i = 0; i < KV_LANES; i++)
        if (state[i] != LOWER) return -1;
    return 0;
}
