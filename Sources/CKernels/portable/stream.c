#include "stream.h"

#include <string.h>

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

int kv_stream_encode(const int16_t *codes, const kv_component *components, size_t count, size_t tokens,
                     kv_stream_buffer *buffer) {
    bit_writer writer = {buffer->bits, buffer->bits + buffer->bits_capacity, 0, 0, 0};
    for (size_t k = 0; k < count; k++) {
        if (!components[k].table) continue;
        unsigned shift = components[k].low_bits;
        for (size_t t = 0; t < tokens; t++) {
            int code = codes[k * tokens + t];
            if (kv_symbol_of(code, shift) == KV_ESCAPE) write_bits(&writer, (uint16_t)code, 16);
            else if (shift) write_bits(&writer, (uint32_t)code, shift);
        }
    }
    if (writer.filled) write_bits(&writer, 0, 8 - writer.filled);
    buffer->bits_length = (size_t)(writer.next - buffer->bits);

    // The decoder takes last what is coded first, so words are filled from the end.
    uint32_t state[KV_STREAM_LANES];
    for (int i = 0; i < KV_STREAM_LANES; i++) state[i] = KV_LOWER;
    uint16_t *end = buffer->words + buffer->words_capacity, *next = end;
    for (size_t k = count; k-- > 0;) {
        const kv_table *table = components[k].table;
        if (!table) continue;
        for (size_t t = tokens; t-- > 0;) {
            int symbol = kv_symbol_of(codes[k * tokens + t], components[k].low_bits);
            uint32_t f = table->frequency[symbol], x = state[t % KV_STREAM_LANES];
            // A symbol the table can't code: the caller's tables give every symbol a frequency.
            if (f == 0) return -1;
            if (f < KV_SCALE && x >= f << (32 - KV_SCALE_BITS)) {
                if (next == buffer->words) return -1;
                *--next = (uint16_t)x;
                x >>= 16;
            }
            state[t % KV_STREAM_LANES] = x / f * KV_SCALE + x % f + table->start[symbol];
        }
    }
    if (next - buffer->words < 2 * KV_STREAM_LANES || writer.full) return -1;
    for (int i = KV_STREAM_LANES; i-- > 0;) {
        *--next = (uint16_t)(state[i] >> 16);
        *--next = (uint16_t)state[i];
    }
    buffer->word_count = (size_t)(end - next);
    memmove(buffer->words, next, buffer->word_count * 2);
    return 0;
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
