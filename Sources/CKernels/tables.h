// Shared inside CKernels: the functions the tables are made of.
#ifndef KVTC_TABLES_H
#define KVTC_TABLES_H

#include "include/CKernels.h"

enum { KV_TILE = 32 };

void scalar_to_float(kv_element, const void *source, float *target, size_t count);
size_t scalar_from_float(kv_element, const float *source, void *target, size_t count);
void scalar_inverse(kv_basis, uint32_t first, uint32_t count, const int16_t *codes, uint32_t tokens, uint32_t column_begin,
                    uint32_t column_end, float scale, float *target, size_t stride);


// x86-64 only.
void avx2_to_float(kv_element, const void *source, float *target, size_t count);
size_t avx2_from_float(kv_element, const float *source, void *target, size_t count);

#endif
