#include "tables.h"

#include <string.h>

size_t kv_packed_size(size_t columns, size_t quads) { return (columns + KV_TILE - 1) / KV_TILE * quads * KV_QUAD * KV_TILE; }

static size_t place(size_t column, size_t quads, size_t digit) {
    return ((column / KV_TILE * quads + digit / KV_QUAD) * KV_TILE + column % KV_TILE) * KV_QUAD + digit % KV_QUAD;
}

void kv_pack_digit(const int8_t *row, size_t columns, size_t quads, size_t digit, uint8_t *packed) {
    for (size_t c = 0; c < columns; c++) packed[place(c, quads, digit)] = (uint8_t)(row[c] + 128);
}

void kv_expand_digit(const uint8_t *packed, size_t columns, size_t quads, size_t digit, float scale, float *target) {
    for (size_t c = 0; c < columns; c += KV_TILE) {
        const uint8_t *at = packed + place(c, quads, digit);
        size_t width = columns - c < KV_TILE ? columns - c : KV_TILE;
        for (size_t i = 0; i < width; i++) target[c + i] += scale * (float)((int)at[KV_QUAD * i] - 128);
    }
}

// The digit of weight 128^level in the balanced expansion, −64…63.
static inline int digit_of(int code, unsigned level) {
    for (;; level--) {
        int low = ((code + 64) & 127) - 64;
        if (level == 0) return low;
        code = (code - low) >> 7;
    }
}

void kv_pack_codes(const int16_t *codes, size_t tokens, const int32_t *components, size_t count, unsigned level,
                   int8_t *quads, int32_t *sums) {
    static const int16_t zeros[KV_SLAB];
    memset(sums, 0, tokens * sizeof *sums);
    for (size_t t0 = 0; t0 < tokens; t0 += KV_SLAB) {
        size_t n = tokens - t0 < KV_SLAB ? tokens - t0 : KV_SLAB;
        for (size_t i = 0; i < count; i += KV_QUAD, quads += n * KV_QUAD) {
            const int16_t *rows[KV_QUAD];
            for (size_t k = 0; k < KV_QUAD; k++)
                rows[k] = i + k < count ? codes + (size_t)components[i + k] * tokens + t0 : zeros;
            for (size_t t = 0; t < n; t++) {
                uint32_t word = 0;
                int32_t sum = 0;
                for (int k = 0; k < KV_QUAD; k++) {
                    int digit = digit_of(rows[k][t], level);
                    word |= (uint32_t)(digit & 255) << (8 * k);
                    sum += digit;
                }
                memcpy(quads + t * KV_QUAD, &word, 4);
                sums[t0 + t] += sum;
            }
        }
    }
}

void scalar_inverse(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab, uint32_t tokens,
                    uint32_t first, uint32_t count, float *target, size_t stride) {
    for (uint32_t t = 0; t < count; t++)
        for (int c = 0; c < KV_TILE; c++) {
            // Unsigned, because sums may wrap on the way to a result that fits.
            uint32_t sum = 0;
            for (size_t i = 0; i < term_count; i++) {
                kv_term term = terms[i];
                const uint8_t *digits = tile + ((size_t)term.first * KV_TILE + c) * KV_QUAD;
                const int8_t *codes = term.codes + ((size_t)slab * KV_SLAB * term.quads + first + t) * KV_QUAD;
                sum <<= term.shift;
                for (uint32_t q = 0; q < term.quads; q++)
                    for (int k = 0; k < KV_QUAD; k++)
                        sum += (uint32_t)(codes[(size_t)q * tokens * KV_QUAD + k] *
                                          (digits[(size_t)q * KV_TILE * KV_QUAD + k] - 128));
                if (term.scale == 0) continue;
                target[t * stride + c] += (float)(int32_t)sum * term.scale;
                sum = 0;
            }
        }
}

void scalar_scale_offset(float *row, const float *scale, const float *offset, size_t count) {
    for (size_t i = 0; i < count; i++) row[i] = row[i] * scale[i] + offset[i];
}
