#ifndef KVTC_COPY_H
#define KVTC_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Strides count elements of `bytes` each.
static inline void copy_run(const uint8_t *source, size_t source_stride, uint8_t *target, size_t target_stride,
                            size_t length, size_t bytes) {
    if (source_stride == 1 && target_stride == 1) {
        memcpy(target, source, length * bytes);
        return;
    }
    if (bytes == 2) {
        for (size_t i = 0; i < length; i++) memcpy(target + 2 * i * target_stride, source + 2 * i * source_stride, 2);
        return;
    }
    for (size_t i = 0; i < length; i++) memcpy(target + i * target_stride * bytes, source + i * source_stride * bytes, bytes);
}

#endif
