#include "../include/kv_transform.h"
#include "clones.h"

#include <string.h>

size_t kv_packed_size(size_t columns, size_t quads) { return (columns + KV_TILE - 1) / KV_TILE * quads * KV_QUAD * KV_TILE; }

static size_t place(size_t column, size_t quads, size_t digit) {
    return ((column / KV_TILE * quads + digit / KV_QUAD) * KV_TILE + column % KV_TILE) * KV_QUAD + digit % KV_QUAD;
}

void kv_pack_digit(const int8_t *row, size_t columns, size_t quads, size_t digit, uint8_t *packed) {
    for (size_t c = 0; c < columns; c++) packed[place(c, quads, digit)] = (uint8_t)(row[c] + 128);
}

// The digit of weight 2^(bits · level) in the balanced expansion.
static inline __attribute__((always_inline)) int digit_of(int code, unsigned level, int bits) {
    int half = 1 << (bits - 1), mask = (1 << bits) - 1;
    int low = ((code + half) & mask) - half;
    for (unsigned i = 0; i < level; i++) {
        code = (code - low) >> bits;
        low = ((code + half) & mask) - half;
    }
    return low;
}

// Quads of a slab with whole lines.
static size_t whole_lines(size_t quads, size_t line) { return (quads + line - 1) / line * line; }

static inline __attribute__((always_inline)) void pack_codes(const int16_t *codes, size_t tokens, const int32_t *components,
                                                             size_t count, unsigned level, int bits, size_t line,
                                                             int8_t *quads, int32_t *sums) {
    static const int16_t zeros[KV_SLAB];
    memset(sums, 0, tokens * sizeof *sums);
    const size_t whole = whole_lines((count + KV_QUAD - 1) / KV_QUAD, line);
    for (size_t t0 = 0; t0 < tokens; t0 += KV_SLAB) {
        size_t n = tokens - t0 < KV_SLAB ? tokens - t0 : KV_SLAB;
        for (size_t q = 0; q < whole; q++) {
            const size_t i = q * KV_QUAD;
            int8_t *to = quads + (q / line * line * n + q % line) * KV_QUAD;
            const int16_t *rows[KV_QUAD];
            for (size_t k = 0; k < KV_QUAD; k++)
                rows[k] = i + k < count ? codes + (size_t)components[i + k] * tokens + t0 : zeros;
            for (size_t t = 0; t < n; t++) {
                uint32_t word = 0;
                int32_t sum = 0;
                for (int k = 0; k < KV_QUAD; k++) {
                    int digit = digit_of(rows[k][t], level, bits);
                    word |= (uint32_t)(digit & 255) << (8 * k);
                    sum += digit;
                }
                memcpy(to + t * line * KV_QUAD, &word, 4);
                sums[t0 + t] += sum;
            }
        }
        quads += whole * n * KV_QUAD;
    }
}

// One loop for each level and base, so that the digits take no loop of their own.
KV_CLONES void kv_pack_codes(const int16_t *codes, size_t tokens, const int32_t *components, size_t count, kv_digits to) {
    if (to.level == 0 && to.bits == 8 && to.line == 1)
        pack_codes(codes, tokens, components, count, 0, 8, 1, to.quads, to.sums);
    else if (to.level == 0 && to.bits == 7 && to.line == 1)
        pack_codes(codes, tokens, components, count, 0, 7, 1, to.quads, to.sums);
    else
        pack_codes(codes, tokens, components, count, to.level, (int)to.bits, to.line, to.quads, to.sums);
}

static inline __attribute__((always_inline)) void pack_rows(const int16_t *values, size_t rows, size_t stride,
                                                            const uint32_t *column_quads, size_t count, int halvings,
                                                            unsigned level, int bits, size_t line, int8_t *quads,
                                                            int32_t *sums) {
    int half = halvings ? 1 << (halvings - 1) : 0;
    const size_t whole = whole_lines(count, line);
    for (size_t r0 = 0; r0 < rows; r0 += KV_SLAB) {
        size_t n = rows - r0 < KV_SLAB ? rows - r0 : KV_SLAB;
        for (size_t r = 0; r < n; r++) {
            const int16_t *row = values + (r0 + r) * stride;
            int32_t sum = 0;
            for (size_t i = 0; i < count; i++) {
                uint32_t word = 0;
                for (int k = 0; k < KV_QUAD; k++) {
                    int digit = digit_of((row[KV_QUAD * column_quads[i] + k] + half) >> halvings, level, bits);
                    word |= (uint32_t)(digit & 255) << (8 * k);
                    sum += digit;
                }
                memcpy(quads + ((i / line * n + r) * line + i % line) * KV_QUAD, &word, 4);
            }
            for (size_t i = count; i < whole; i++)
                memset(quads + ((i / line * n + r) * line + i % line) * KV_QUAD, 0, KV_QUAD);
            sums[r0 + r] = sum;
        }
        quads += whole * n * KV_QUAD;
    }
}

KV_CLONES void kv_pack_rows(const int16_t *values, size_t rows, size_t stride, const uint32_t *column_quads, size_t count,
                            unsigned halvings, kv_digits to) {
    if (to.level == 0 && to.bits == 8 && to.line == 1)
        pack_rows(values, rows, stride, column_quads, count, (int)halvings, 0, 8, 1, to.quads, to.sums);
    else
        pack_rows(values, rows, stride, column_quads, count, (int)halvings, to.level, (int)to.bits, to.line, to.quads,
                  to.sums);
}

KV_CLONES void kv_column_peaks(const int16_t *values, size_t rows, size_t stride, size_t column_quads, uint16_t *peaks) {
    memset(peaks, 0, column_quads * sizeof *peaks);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < column_quads; i++) {
            uint16_t peak = peaks[i];
            for (int k = 0; k < KV_QUAD; k++) {
                int value = values[r * stride + KV_QUAD * i + k];
                uint16_t magnitude = (uint16_t)(value < 0 ? -value : value);
                peak = magnitude > peak ? magnitude : peak;
            }
            peaks[i] = peak;
        }
}
