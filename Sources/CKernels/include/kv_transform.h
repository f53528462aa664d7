// The linear transform as sums of products of bytes: digits of a basis times digits of codes.
//
// A basis is packed in tiles of 32 columns, in each [digits / 4][32][4] digits plus 128, the last tile padded with zeros
// (128). Codes are split into signed digits that fit a byte.
#ifndef KVTC_KV_TRANSFORM_H
#define KVTC_KV_TRANSFORM_H

#include <stddef.h>
#include <stdint.h>

// Columns of a tile, digits of a quad, tokens of a slab.
enum { KV_TILE = 32, KV_QUAD = 4, KV_SLAB = 64 };

// Part of a sum over the quads `first`… of a tile: sum = (sum << shift) + Σ codes · digits. A sum has at most KV_MOST_PARTS.
enum { KV_MOST_PARTS = 6 };
typedef struct {
    const int8_t *codes;   // slabs of 64 tokens: [slab][quads / line][tokens of the slab][line][4]
    const int32_t *sums;   // Σ codes of each token
    uint32_t first, quads;
    float scale;           // not 0: the sum is complete, target += sum · scale, and the next one starts at 0
    uint16_t shift, depth; // depth · 4 · 255 · largest |code| / 2 stays below 2^15
} kv_term;

// Memory that will be needed next, brought nearer on the way: cache lines of 64 bytes, 16 at `at`, 16 one stride on, and so on.
typedef struct {
    const uint8_t *at;
    size_t stride;        // bytes
    uint32_t next, lines;
} kv_ahead;

// One tile for some tokens of a slab.
typedef struct {
    const uint8_t *tile;   // [quads][32][4]
    size_t quads;          // past which nothing may be read
    const kv_term *terms;
    size_t term_count;
    uint32_t slab, tokens; // which slab, and how many tokens it has
    uint32_t first, count; // of the slab's tokens
    float *target;         // [count][stride], of which 32 columns
    size_t stride;         // floats from token to token
    kv_ahead *ahead;       // NULL: nothing is needed next
} kv_inverse_job;

typedef struct {
    // Codes are split into digits of so many bits: 8, or 7 where pairs of products must fit 16 bits.
    unsigned digit_bits;
    // Quads of a token that lie side by side in the codes; what is left of the last such line is zeros.
    unsigned line;
    // Adds the complete sums to the target. The caller keeps Σ|codes| of a token below 2^24, so that int32 sums hold.
    void (*inverse)(const kv_inverse_job *);
    // The other way round, for the forward transform: quads first…first + count (at most 8) of the digits of some tiles, from
    // `packed` on, as a tile [quad of columns][32 digits][4 columns]; missing digits are 128. The quads of columns are put at
    // `places`, 8 a tile.
    void (*turn)(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                 uint8_t *turned);
} kv_transform_kernels;

// Bytes of a packed basis, and one digit of every column put into it.
size_t kv_packed_size(size_t columns, size_t quads);
void kv_pack_digit(const int8_t *row, size_t columns, size_t quads, size_t digit, uint8_t *packed);

// Where the digits of integers go: those of weight 2^(bits · level), as quads in slabs, and their sum for each token.
typedef struct {
    unsigned level, bits, line;
    int8_t *quads;  // [slab][quads / line][tokens of the slab][line][4]
    int32_t *sums;  // [tokens]
} kv_digits;

// Digits of the codes of components[i], an index into codes [component][tokens]. `count` is rounded up to quads with zeros.
void kv_pack_codes(const int16_t *codes, size_t tokens, const int32_t *components, size_t count, kv_digits digits);
// Digits of values [row][stride], divided by 2^halvings and rounded, for `count` quads of columns.
void kv_pack_rows(const int16_t *values, size_t rows, size_t stride, const uint32_t *column_quads, size_t count,
                  unsigned halvings, kv_digits digits);
// Largest magnitude in each quad of columns.
void kv_column_peaks(const int16_t *values, size_t rows, size_t stride, size_t column_quads, uint16_t *peaks);

#endif
