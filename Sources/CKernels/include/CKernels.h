// Hot loops of the codec. The scalar table is the specification; every other table returns the same bits.
// All functions are pure: they touch only the memory they are given and are safe to call from any thread.
#ifndef KVTC_CKERNELS_H
#define KVTC_CKERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum { KV_F16 = 1, KV_BF16 = 2, KV_F32 = 3, KV_E4M3 = 4, KV_E5M2 = 5 } kv_element;

// One pair-rotated stretch of a row: `pairs` pairs whose partners are `partner` elements apart, `step` from pair to pair
// (step 1: halves; step 2, partner 1: neighbours). `angle` is the offset of its cosines and sines in a token's table.
typedef struct {
    uint32_t first, pairs, step, partner, angle;
} kv_rotation;

// A basis is packed for sums of products of bytes: tiles of 32 columns, in each [digits / 4][32][4] digits plus 128, the
// last tile padded with zeros (128). Codes are split into signed digits that fit a byte.
enum { KV_TILE = 32, KV_QUAD = 4, KV_SLAB = 64, KV_WIDEST = 256 };

// Part of a sum over the quads `first`… of a tile: sum = (sum << shift) + Σ codes · digits.
typedef struct {
    const int8_t *codes;  // slabs of 64 tokens: [slab][quads][tokens of the slab][4]
    const int32_t *sums;  // Σ codes of each token
    uint32_t first, quads;
    float scale;          // not 0: the sum is complete, target += sum · scale, and the next one starts at 0
    uint16_t shift, depth; // depth · 4 · 255 · largest |code| / 2 stays below 2^15
} kv_term;

// Memory that will be needed next, brought nearer on the way: cache lines of 64 bytes, 16 at `at`, 16 one stride on, and so on.
typedef struct {
    const uint8_t *at;
    size_t stride;
    uint32_t next, lines;
} kv_ahead;

// A component in an entropy-coded stream.
typedef struct kv_table kv_table;
typedef struct {
    const kv_table *table; // NULL: nothing is coded, its codes are 0
    uint8_t low_bits;      // raw low bits of each code
    uint8_t doublings;     // decoded codes count times 2^doublings
} kv_component;

typedef struct {
    const char *name;
    // Codes are split into digits of so many bits: 8, or 7 where pairs of products must fit 16 bits.
    unsigned digit_bits;
    // Little-endian elements to float and back. The way back rounds to nearest even and clamps to the largest
    // finite value; the return value counts the clamped ones.
    void (*to_float)(kv_element, const void *source, float *target, size_t count);
    size_t (*from_float)(kv_element, const float *source, void *target, size_t count);
    // One tile of the inverse transform for tokens first…first + count of a slab that has `tokens`: adds complete sums to
    // target[t][32]. The caller keeps Σ|codes| of a token below 2^24, so that int32 sums hold. `ahead` may be NULL.
    void (*inverse)(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab, uint32_t tokens,
                    uint32_t first, uint32_t count, float *target, size_t stride, kv_ahead *ahead);
    // The other way round, for the forward transform: quads first…first + count (at most 8) of the digits of some tiles, from
    // `packed` on, as a tile [quad of columns][32 digits][4 columns]; missing digits are 128. The quads of columns are put at
    // `places`, 8 a tile.
    void (*turn)(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                 uint8_t *turned);
    // row[i] = row[i] · scale[i] + offset[i], rounded twice.
    void (*scale_offset)(float *row, const float *scale, const float *offset, size_t count);
    // rows[row] = matrix [width][width] · rows[row], for rows `stride` floats apart; the matrix is symmetric and at most
    // KV_WIDEST wide. Every sum starts at 0 and takes its terms in order, each by one fused multiplication and addition.
    void (*multiply)(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
    // Rotates (direction +1) or rotates back (−1) every stretch of a row; `angles` is a kv_rotation_table.
    void (*rotate)(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction);
    // Decodes `count` components to codes [component][tokens] and the largest |code| of each. `words` need no alignment.
    // Returns 0; −1 where the stream ends early, leaves something over, its states don't come back to the start, or a
    // code leaves 16 bits.
    int (*rans_decode)(const uint8_t *words, size_t word_count, const uint8_t *bits, size_t bits_length,
                       const kv_component *components, size_t count, size_t tokens, int16_t *codes, uint16_t *largest);
    // Exact cost in 1/64 bit of one component's codes with `shift` raw low bits each.
    uint64_t (*cost)(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
} kv_kernels;

// Tables by name; NULL where the CPU lacks AVX2, FMA and F16C; AVX-512 BW, VL and VNNI; or isn't an ARM of 64 bits.
const kv_kernels *kv_scalar(void);
const kv_kernels *kv_avx2(void);
const kv_kernels *kv_avx512(void);
const kv_kernels *kv_neon(void);
// The best of them, or the one that the environment variable KVTC_KERNELS names; NULL where that one can't run here.
const kv_kernels *kv_best(void);

// Whether every element of the row is finite.
int kv_all_finite(kv_element, const void *row, size_t count);

// Byte plane p of `count` elements of `bytes` each goes to planes + p · count, and back.
void kv_split_planes(const uint8_t *elements, size_t count, size_t bytes, uint8_t *planes);
void kv_join_planes(const uint8_t *planes, size_t count, size_t bytes, uint8_t *elements);

// target[c][r] = source[r][c] of bytes.
void kv_transpose(const uint8_t *source, size_t rows, size_t columns, uint8_t *target);

// Where `length` elements of a token's row, from `column` on, lie in a page of another layout: element (t, i) is at
// base + t · token_stride + i · element_stride.
typedef struct {
    uint32_t column, length;
    size_t base, token_stride, element_stride;
} kv_run;
// Copies to memory that is not read soon: past the caches, whose lines need not be fetched from memory to be overwritten.
void kv_copy_past_caches(uint8_t *target, const uint8_t *source, size_t bytes);

// Copies those elements of rows to or from a page. Row r of `rows` is token tokens[r] of the page (NULL: r).
void kv_scatter_rows(const uint8_t *rows, size_t row_bytes, const uint32_t *tokens, size_t first, size_t count,
                     const kv_run *runs, size_t run_count, size_t bytes, int past_caches, uint8_t *page);
void kv_gather_rows(const uint8_t *page, const kv_run *runs, size_t run_count, size_t bytes, uint8_t *rows,
                    size_t row_bytes, size_t first, size_t count);

// cos and sin of position · frequency for each pair: the same bits on every machine (no libm). [pairs][2]
void kv_rotation_table(uint32_t position, const float *inverse_frequencies, size_t pairs, float *cos_sin);

// Bytes of a packed basis, and one digit of every column put into it.
size_t kv_packed_size(size_t columns, size_t quads);
void kv_pack_digit(const int8_t *row, size_t columns, size_t quads, size_t digit, uint8_t *packed);

// Codes of components[i] (index into codes [component][tokens]) as quads of their digits of `bits` bits, `level` 0 lowest, in
// slabs; sums of each token. `count` is rounded up to quads with zeros.
void kv_pack_codes(const int16_t *codes, size_t tokens, const int32_t *components, size_t count, unsigned level,
                   unsigned bits, int8_t *quads, int32_t *sums);
// Likewise of values [row][stride], divided by 2^halvings and rounded, for `count` quads of columns.
void kv_pack_rows(const int16_t *values, size_t rows, size_t stride, const uint32_t *column_quads, size_t count,
                  unsigned halvings, unsigned level, unsigned bits, int8_t *quads, int32_t *sums);
// Largest magnitude in each quad of columns.
void kv_column_peaks(const int16_t *values, size_t rows, size_t stride, size_t column_quads, uint16_t *peaks);

// A matrix for some columns of a row.
typedef struct {
    uint32_t first, width;
    const float *matrix;
} kv_block;

// What the coded rows of a page need to become elements: x = Σ; x = matrix · x where there are matrices;
// x · inverse_weight + mean; rotation; rounding.
typedef struct {
    const kv_kernels *kernels;
    const float *inverse_weight, *mean; // of a row
    const float *angles;                // [coded row][angle_stride]
    size_t angle_stride;
    const uint32_t *tokens;             // of the page, one a coded row
    uint32_t rows;                      // coded rows
    kv_element element;
    uint8_t bytes;
} kv_synthesis;
// Columns begin…end of a row, at most 8192 of them, that lie in the basis whose packed columns start at `basis_begin`.
void kv_synthesise(const kv_synthesis *page, const uint8_t *packed, size_t quads, uint32_t basis_begin,
                   const kv_term *terms, size_t term_count, uint32_t begin, uint32_t end, const kv_block *blocks,
                   size_t block_count, const kv_rotation *rotations, size_t rotation_count, const kv_run *runs,
                   size_t run_count, uint8_t *output);

// codes[i] = round-to-nearest(values[i] · inverse_step), clamped to ±limit.
void kv_quantise(const float *values, size_t count, float inverse_step, int limit, int16_t *codes);

// Largest magnitude.
float kv_peak(const float *values, size_t count);

// Squared error of codes · step against the values (codes NULL: all zero), and the values' own energy.
typedef struct {
    double error, energy;
} kv_sums;
kv_sums kv_error(const float *values, const int16_t *codes, size_t count, float step);

// One choice of a dynamic programme: next[i] = least[i] + error where that is less.
void kv_relax(const float *least, size_t count, float error, float *next);

// Entropy coding. A symbol table: 32 frequencies that sum to 4096. Symbols 0…30 are code >> shift plus 15; 31 escapes.
enum { KV_SYMBOLS = 32, KV_SCALE_BITS = 12, KV_LANES = 16, KV_ESCAPE = 31, KV_CENTRE = 15 };
struct kv_table {
    uint16_t frequency[KV_SYMBOLS], start[KV_SYMBOLS];
    uint16_t cost[KV_SYMBOLS];                // 1/64 bit, raw low bits not included
    uint8_t cost_low[KV_SYMBOLS], cost_high[KV_SYMBOLS]; // its bytes
    uint32_t slot[1 << KV_SCALE_BITS];        // symbol << 24 | (slot − start) << 12 | (frequency − 1)
};
// Returns 0, or −1 where the frequencies do not sum to 4096.
int kv_table_make(const uint16_t *frequency, kv_table *table);
// The best table's cost.
uint64_t kv_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
void kv_histogram(const int16_t *codes, size_t count, unsigned shift, uint64_t *counts);

// Codes [components][tokens] of the components that have a table. Lane = token mod 16. Encoding fills `words` from
// the end and returns the number of 16-bit words (states included), or SIZE_MAX where `words_capacity` is too small;
// raw bits and escapes go to `bits` (capacity in bytes), *bits_length out.
size_t kv_rans_encode(const int16_t *codes, const kv_component *components, size_t count, size_t tokens, uint16_t *words,
                      size_t words_capacity, uint8_t *bits, size_t bits_capacity, size_t *bits_length);

#endif
