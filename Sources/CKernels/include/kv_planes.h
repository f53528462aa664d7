// Bytes of elements apart, for lossless coding.
#ifndef KVTC_KV_PLANES_H
#define KVTC_KV_PLANES_H

#include <stddef.h>
#include <stdint.h>

// Byte plane p of `count` elements of `bytes` each goes to planes + p · count, and back.
void kv_split_planes(const uint8_t *elements, size_t count, size_t bytes, uint8_t *planes);
void kv_join_planes(const uint8_t *planes, size_t count, size_t bytes, uint8_t *elements);

// target[c][r] = source[r][c] of bytes.
void kv_transpose(const uint8_t *source, size_t rows, size_t columns, uint8_t *target);

#endif
