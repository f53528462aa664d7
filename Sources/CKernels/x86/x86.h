// The AVX2 kernels; the AVX-512 tier takes those that it has no better ones for.
#ifndef KVTC_X86_H
#define KVTC_X86_H

#include "../scalar/scalar.h"

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))

void avx2_to_float(kv_element, const void *source, float *target, size_t count);
size_t avx2_from_float(kv_element, const float *source, void *target, size_t count);
void avx2_scale_offset(float *row, const float *scale, const float *offset, size_t count);
void avx2_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
void avx2_rotate(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction);
void avx2_inverse(const kv_inverse_job *);
void avx2_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
               uint8_t *turned);
int avx2_rans_decode(const kv_rans_chunk *, int16_t *codes, uint16_t *largest);
int avx2_decode_stream(const kv_stream *, int16_t *codes, uint16_t *largest);
uint64_t avx2_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);

void avx512_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
void vnni_inverse(const kv_inverse_job *);
void vnni_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
               uint8_t *turned);
int vnni_rans_decode(const kv_rans_chunk *, int16_t *codes, uint16_t *largest);
// Quads of a row of a tile register.
enum { AMX_LINE = 16 };
int amx_is_allowed(void);
void amx_inverse(const kv_inverse_job *);
int vnni_decode_stream(const kv_stream *, int16_t *codes, uint16_t *largest);
#endif

#endif
