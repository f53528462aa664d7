#include "../portable/stream.h"
#include "scalar.h"

#include <string.h>

int scalar_decode_stream(const kv_stream *stream, int16_t *codes, uint16_t *largest) {
    if (stream->word_count < 2 * KV_STREAM_LANES) return -1;
    const kv_component *components = stream->components;
    const size_t count = stream->count, tokens = stream->tokens;
    const uint8_t *next = stream->words, *end = next + 2 * stream->word_count;
    uint32_t state[KV_STREAM_LANES];
    for (int i = 0; i < KV_STREAM_LANES; i++, next += 4)
        state[i] = next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16 | (uint32_t)next[3] << 24;
    kv_bit_reader reader = {stream->bits, stream->bits + stream->bits_length, 0, 0};
    for (size_t k = 0; k < count; k++, codes += tokens) {
        if (!components[k].table) {
            memset(codes, 0, tokens * sizeof *codes);
            largest[k] = 0;
            continue;
        }
        const uint32_t *slots = components[k].table->slot;
        for (size_t t = 0; t < tokens; t++) {
            uint32_t x = state[t % KV_STREAM_LANES], entry = slots[x & (KV_SCALE - 1)];
            x = ((entry & 0xFFF) + 1) * (x >> KV_SCALE_BITS) + (entry >> 12 & 0xFFF);
            if (x < KV_LOWER) {
                if (next == end) return -1;
                x = x << 16 | next[0] | (uint32_t)next[1] << 8;
                next += 2;
            }
            state[t % KV_STREAM_LANES] = x;
            codes[t] = (int16_t)((int)(entry >> 24) - KV_CENTRE);
        }
        if (kv_finish_codes(&reader, components[k], tokens, codes, largest + k)) return -1;
    }
    if (next != end || reader.next != reader.end || reader.filled >= 8 || reader.pool) return -1;
    for (int i = 0; i < KV_STREAM_LANES; i++)
        if (state[i] != KV_LOWER) return -1;
    return 0;
}
