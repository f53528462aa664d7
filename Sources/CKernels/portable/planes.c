#include "../include/kv_planes.h"

void kv_split_planes(const uint8_t *elements, size_t count, size_t bytes, uint8_t *planes) {
    for (size_t p = 0; p < bytes; p++)
        for (size_t i = 0; i < count; i++) planes[p * count + i] = elements[i * bytes + p];
}

void kv_join_planes(const uint8_t *planes, size_t count, size_t bytes, uint8_t *elements) {
    for (size_t p = 0; p < bytes; p++)
        for (size_t i = 0; i < count; i++) elements[i * bytes + p] = planes[p * count + i];
}

void kv_transpose(const uint8_t *source, size_t rows, size_t columns, uint8_t *target) {
    // Squares of 64 keep both sides in cache.
    for (size_t r0 = 0; r0 < rows; r0 += 64)
        for (size_t c0 = 0; c0 < columns; c0 += 64)
            for (size_t c = c0; c < c0 + 64 && c < columns; c++)
                for (size_t r = r0; r < r0 + 64 && r < rows; r++) target[c * rows + r] = source[r * columns + c];
}
