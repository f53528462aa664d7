// The scalar kernels, which the others fall back on for what is left over.
#ifndef KVTC_SCALAR_H
#define KVTC_SCALAR_H

#include "../include/CKernels.h"

enum { QUADS_A_TILE = KV_TILE / KV_QUAD, TILE_QUAD = KV_TILE * KV_QUAD };

void scalar_to_float(kv_element, const void *source, float *target, size_t count);
size_t scalar_from_float(kv_element, const float *source, void *target, size_t count);
void scalar_scale_offset(float *row, const float *scale, const float *offset, size_t count);
void scalar_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
void scalar_rotate(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction);
void scalar_inverse(const kv_inverse_job *);
void scalar_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                 uint8_t *turned);
int scalar_rans_decode(const kv_rans_chunk *, int16_t *codes, uint16_t *largest);
int scalar_decode_stream(const kv_stream *, int16_t *codes, uint16_t *largest);
uint64_t scalar_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);

#endif
