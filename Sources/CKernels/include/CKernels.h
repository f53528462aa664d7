// Hot loops of the codec. The scalar table is the specification; every other table returns the same bits.
// All functions are pure: they touch only the memory they are given and are safe to call from any thread.
#ifndef KVTC_CKERNELS_H
#define KVTC_CKERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum { KV_F16 = 1, KV_BF16 = 2, KV_F32 = 3, KV_E4M3 = 4, KV_E5M2 = 5 } kv_element;

// One pair-rotated stretch of a row: `pairs` pairs whose partners are `partner` elements apart, `step` from pair to pair.
typedef struct {
    uint32_t first, pairs, step, partner, table;
} kv_rotation;

// Transform basis rows as int8 digits: tile-major [columns / 32][digits / 2][32][2], both counts rounded up.
typedef struct {
    const int8_t *packed;
    uint32_t columns, digits;
} kv_basis;

typedef struct {
    const char *name;
    // Little-endian elements to float and back. The way back rounds to nearest even and clamps to the largest
    // finite value; the return value counts the clamped ones.
    void (*to_float)(kv_element, const void *source, float *target, size_t count);
    size_t (*from_float)(kv_element, const float *source, void *target, size_t count);
    // target[t][c] += 2^exponent · Σ_k codes[t][k] · digit[first + k][c] for `tokens` rows of `stride` floats. `codes` is
    // [count / 2][tokens][2] int16, count even; the caller keeps Σ|codes| of a token below 2^24, so int32 sums can't overflow.
    void (*inverse)(kv_basis, uint32_t first, uint32_t count, const int16_t *codes, uint32_t tokens, uint32_t column_begin,
                    uint32_t column_end, float scale, float *target, size_t stride);
} kv_kernels;

// The best table for this machine, and each by name; NULL where the CPU lacks AVX2, FMA and F16C, or AVX-512 BW, VL and VNNI.
const kv_kernels *kv_best(void);
const kv_kernels *kv_scalar(void);
const kv_kernels *kv_avx2(void);
const kv_kernels *kv_avx512(void);

// Whether every element of the row is finite.
int kv_all_finite(kv_element, const void *row, size_t count);

// Byte plane p of `count` elements of `bytes` each goes to planes + p · count, and back.
void kv_split_planes(const uint8_t *elements, size_t count, size_t bytes, uint8_t *planes);
void kv_join_planes(const uint8_t *planes, size_t count, size_t bytes, uint8_t *elements);

// target[c][r] = source[r][c] of bytes.
void kv_transpose(const uint8_t *source, size_t rows, size_t columns, uint8_t *target);

// Strided copy of `length` elements of `bytes` each.
void kv_gather(const uint8_t *source, size_t source_stride, uint8_t *target, size_t target_stride, size_t length,
               size_t bytes);

// cos and sin of position · frequency for each pair: the same bits on every machine (no libm). [pairs][2]
void kv_rotation_table(uint32_t position, const float *inverse_frequencies, size_t pairs, float *cos_sin);
// Rotates (direction +1) or rotates back (−1) every stretch of a row; `tables` are kv_rotation_table results.
void kv_rotate(float *row, const kv_rotation *rotations, size_t count, const float *const *tables, int direction);

// Row-major digits [digits][columns] to kv_basis's packing; `packed` holds kv_packed_size bytes.
size_t kv_packed_size(uint32_t columns, uint32_t digits);
void kv_pack_basis(const int8_t *rows, uint32_t columns, uint32_t first_digit, uint32_t digits, uint32_t all_digits,
                   int8_t *packed);

// target[k][c] = scales[k] · rows[k][c]: a tile of the basis as floats for the forward transform.
void kv_expand_basis(const int8_t *rows, const float *scales, uint32_t count, uint32_t columns, float *target);

// codes[i] = round-to-nearest(values[i] · inverse_step), clamped to ±limit.
void kv_quantise(const float *values, size_t count, float inverse_step, int limit, int16_t *codes);

// Squared error of codes · step against the values (codes NULL: all zero), and the values' own energy.
typedef struct {
    double error, energy;
} kv_sums;
kv_sums kv_error(const float *values, const int16_t *codes, size_t count, float step);

// Entropy coding. A symbol table: 32 frequencies that sum to 4096. Symbols 0…30 are code >> shift plus 15; 31 escapes.
enum { KV_SYMBOLS = 32, KV_SCALE_BITS = 12, KV_LANES = 16, KV_ESCAPE = 31, KV_CENTRE = 15 };
typedef struct {
    uint16_t frequency[KV_SYMBOLS], start[KV_SYMBOLS];
    uint16_t cost[KV_SYMBOLS];                // 1/64 bit, raw low bits not included
    uint32_t slot[1 << KV_SCALE_BITS];        // symbol << 24 | (slot − start) << 12 | (frequency − 1)
} kv_table;
// Returns 0, or −1 where the frequencies do not sum to 4096.
int kv_table_make(const uint16_t *frequency, kv_table *table);
// Exact cost in 1/64 bit of one component's codes with `shift` raw low bits each.
uint64_t kv_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
void kv_histogram(const int16_t *codes, size_t count, unsigned shift, uint64_t *counts);

// Codes [components][tokens], component k with tables[k] and shifts[k]. Lane = token mod 16. Encoding fills `words` from
// the end and returns the number of 16-bit words (states included), or SIZE_MAX where `words_capacity` is too small;
// raw bits and escapes go to `bits` (capacity in bytes), *bits_length out.
size_t kv_rans_encode(const int16_t *codes, size_t components, size_t tokens, const kv_table *const *tables,
                      const uint8_t *shifts, uint16_t *words, size_t words_capacity, uint8_t *bits, size_t bits_capacity,
                      size_t *bits_length);
// Returns 0; −1 where the stream ends early, leaves words over or its states don't come back to the start.
int kv_rans_decode(const uint16_t *words, size_t words_length, const uint8_t *bits, size_t bits_length,
                   size_t components, size_t tokens, const kv_table *const *tables, const uint8_t *shifts, int16_t *codes);

#endif
