// Elements of pages and floats.
#ifndef KVTC_KV_CONVERT_H
#define KVTC_KV_CONVERT_H

#include <stddef.h>

typedef enum { KV_F16 = 1, KV_BF16 = 2, KV_F32 = 3, KV_E4M3 = 4, KV_E5M2 = 5 } kv_element;

typedef struct {
    // Little-endian elements to float and back. The way back rounds to nearest even and clamps to the largest
    // finite value; the return value counts the clamped ones.
    void (*to_float)(kv_element, const void *source, float *target, size_t count);
    size_t (*from_float)(kv_element, const float *source, void *target, size_t count);
} kv_convert_kernels;

// Whether every element of the row is finite.
int kv_all_finite(kv_element, const void *row, size_t count);

#endif
