#include "tables.h"

#include <string.h>

static size_t tile_bytes(uint32_t digits) { return (size_t)((digits + 1) / 2) * KV_TILE * 2; }

size_t kv_packed_size(uint32_t columns, uint32_t digits) {
    return (size_t)((columns + KV_TILE - 1) / KV_TILE) * tile_bytes(digits);
}

void kv_pack_basis(const int8_t *rows, uint32_t columns, uint32_t first_digit, uint32_t digits, uint32_t all_digits,
                   int8_t *packed) {
    for (uint32_t k = 0; k < digits; k++)
        for (uint32_t c = 0; c < columns; c++) {
            uint32_t digit = first_digit + k;
            packed[c / KV_TILE * tile_bytes(all_digits) + (size_t)(digit / 2) * KV_TILE * 2 + c % KV_TILE * 2 + digit % 2] =
                rows[(size_t)k * columns + c];
        }
}

void scalar_inverse(kv_basis basis, uint32_t first, uint32_t count, const int16_t *codes, uint32_t tokens,
                    uint32_t column_begin, uint32_t column_end, float scale, float *target, size_t stride) {
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t c = column_begin; c < column_end; c++) {
            const int8_t *tile = basis.packed + c / KV_TILE * tile_bytes(basis.digits) + c % KV_TILE * 2;
            int32_t sum = 0;
            for (uint32_t k = 0; k < count; k++) {
                uint32_t digit = first + k;
                sum += codes[((size_t)(k / 2) * tokens + t) * 2 + k % 2] * tile[(size_t)(digit / 2) * KV_TILE * 2 + digit % 2];
            }
            target[t * stride + c] += (float)sum * scale;
        }
}

void kv_expand_basis(const int8_t *rows, const float *scales, uint32_t count, uint32_t columns, float *target) {
    for (uint32_t k = 0; k < count; k++)
        for (uint32_t c = 0; c < columns; c++)
            target[(size_t)k * columns + c] = scales[k] * (float)rows[(size_t)k * columns + c];
}

void kv_quantise(const float *values, size_t count, float inverse_step, int limit, int16_t *codes) {
    const float bound = (float)limit, magic = 12582912.0f; // 1.5 · 2^23: adding it rounds to nearest even
    for (size_t i = 0; i < count; i++) {
        float v = values[i] * inverse_step;
        v = v > bound ? bound : v;
        v = v > -bound ? v : -bound;
        codes[i] = (int16_t)(int)((v + magic) - magic);
    }
}

kv_sums kv_error(const float *values, const int16_t *codes, size_t count, float step) {
    // Eight partial sums: the loop vectorises without reordering arithmetic.
    float error[8] = {0}, energy[8] = {0};
    double errors = 0, energies = 0;
    for (size_t i = 0; i < count;) {
        size_t end = count - i > 512 ? i + 512 : count;
        for (; i + 8 <= end; i += 8)
            for (int k = 0; k < 8; k++) {
                float v = values[i + k], d = codes ? v - (float)codes[i + k] * step : v;
                error[k] += d * d;
                energy[k] += v * v;
            }
        for (; i < end; i++) {
            float v = values[i], d = codes ? v - (float)codes[i] * step : v;
            error[0] += d * d;
            energy[0] += v * v;
        }
        for (int k = 0; k < 8; k++) {
            errors += error[k];
            energies += energy[k];
            error[k] = energy[k] = 0;
        }
    }
    return (kv_sums){errors, energies};
}
