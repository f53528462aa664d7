// Rows of floats: weights and means, a matrix for each head, rotary positions.
#ifndef KVTC_KV_ROWS_H
#define KVTC_KV_ROWS_H

#include <stddef.h>
#include <stdint.h>

// Widest matrix, in columns.
enum { KV_WIDEST = 256 };

// A symmetric matrix [width][width] for some columns of a row.
typedef struct {
    uint32_t first, width;
    const float *matrix;
} kv_block;

// One pair-rotated stretch of a row: `pairs` pairs whose partners are `partner` elements apart, `step` from pair to pair
// (step 1: halves; step 2, partner 1: neighbours). `angle` is the offset of its cosines and sines in a token's table.
typedef struct {
    uint32_t first, pairs, step, partner, angle;
} kv_rotation;

typedef struct {
    // row[i] = row[i] · scale[i] + offset[i], rounded twice.
    void (*scale_offset)(float *row, const float *scale, const float *offset, size_t count);
    // rows[row] = matrix [width][width] · rows[row], for rows `stride` floats apart; the matrix is symmetric and at most
    // KV_WIDEST wide. Every sum starts at 0 and takes its terms in order, each by one fused multiplication and addition.
    void (*multiply)(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
    // Rotates (direction +1) or rotates back (−1) every stretch of a row; `angles` is a kv_rotation_table.
    void (*rotate)(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction);
} kv_row_kernels;

// cos and sin of position · frequency for each pair: the same bits on every machine (no libm). [pairs][2]
void kv_rotation_table(uint32_t position, const float *inverse_frequencies, size_t pairs, float *cos_sin);

#endif
