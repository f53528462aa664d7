#include "scalar.h"

#include <math.h>
#include <string.h>

void scalar_scale_offset(float *row, const float *scale, const float *offset, size_t count) {
    for (size_t i = 0; i < count; i++) row[i] = row[i] * scale[i] + offset[i];
}

void scalar_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width) {
    float row[KV_WIDEST];
    for (size_t r = 0; r < count; r++, rows += stride) {
        memcpy(row, rows, width * sizeof(float));
        for (size_t j = 0; j < width; j++) {
            float sum = 0;
            for (size_t i = 0; i < width; i++) sum = fmaf(row[i], matrix[i * width + j], sum);
            rows[j] = sum;
        }
    }
}

void scalar_rotate(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction) {
    float sign = direction < 0 ? -1.0f : 1.0f;
    for (size_t r = 0; r < count; r++) {
        kv_rotation rotation = rotations[r];
        const float *table = angles + rotation.angle;
        float *a = row + rotation.first, *b = a + rotation.partner;
        for (uint32_t i = 0; i < rotation.pairs; i++) {
            float c = table[2 * i], s = sign * table[2 * i + 1];
            float x = a[i * rotation.step], y = b[i * rotation.step];
            a[i * rotation.step] = x * c - y * s;
            b[i * rotation.step] = x * s + y * c;
        }
    }
}
