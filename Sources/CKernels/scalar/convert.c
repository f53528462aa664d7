#include "scalar.h"

#include <math.h>
#include <string.h>

// The 8-bit and half formats share one path: sign, exponent and mantissa widths, bias, and whether the top exponent is
// reserved for infinities (IEEE) or only its last mantissa is a NaN (E4M3).
typedef struct {
    int exponent_bits, mantissa_bits, bias, infinities;
} format;

static format format_of(kv_element element) {
    switch (element) {
    case KV_F16: return (format){5, 10, 15, 1};
    case KV_E4M3: return (format){4, 3, 7, 0};
    default: return (format){5, 2, 15, 1};
    }
}

static float small_to_float(format f, uint32_t bits) {
    uint32_t mantissa = bits & ((1u << f.mantissa_bits) - 1);
    uint32_t exponent = bits >> f.mantissa_bits & ((1u << f.exponent_bits) - 1);
    uint32_t sign = bits >> (f.mantissa_bits + f.exponent_bits) & 1, top = (1u << f.exponent_bits) - 1, word;
    if (exponent == top && (f.infinities || mantissa == (1u << f.mantissa_bits) - 1)) {
        word = 0x7F800000u | mantissa << (23 - f.mantissa_bits) | (mantissa ? 0x400000u : 0);
    } else if (exponent) {
        word = (exponent - f.bias + 127) << 23 | mantissa << (23 - f.mantissa_bits);
    } else {
        float value = ldexpf((float)mantissa, 1 - f.bias - f.mantissa_bits);
        memcpy(&word, &value, 4);
    }
    word |= sign << 31;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

static float largest(format f) {
    uint32_t top = (1u << f.exponent_bits) - 1, mantissa = (1u << f.mantissa_bits) - 1;
    return f.infinities ? small_to_float(f, (top - 1) << f.mantissa_bits | mantissa)
                        : small_to_float(f, top << f.mantissa_bits | (mantissa - 1));
}

// Round to nearest even by the classic magic-number route: add half an ulp of the target, then truncate.
static uint32_t float_to_small(format f, float value, float limit, size_t *clamped) {
    uint32_t word;
    memcpy(&word, &value, 4);
    uint32_t sign = (word >> 31) << (f.mantissa_bits + f.exponent_bits);
    float magnitude = fabsf(value);
    if (!(magnitude <= limit)) {
        // Values that still round to the limit are no loss of range; NaN counts as clamped to zero.
        *clamped += 1;
        magnitude = isnan(value) ? 0 : limit;
    }
    memcpy(&word, &magnitude, 4);
    int exponent = (int)(word >> 23) - 127;
    if (exponent < 1 - f.bias) {
        float scaled = ldexpf(magnitude, f.bias - 1 + f.mantissa_bits);
        return sign | (uint32_t)rintf(scaled);
    }
    int drop = 23 - f.mantissa_bits;
    uint32_t rounded = word + ((1u << (drop - 1)) - 1) + (word >> drop & 1);
    return sign | ((rounded >> drop) - ((uint32_t)(127 - f.bias) << f.mantissa_bits));
}

void scalar_to_float(kv_element element, const void *source, float *target, size_t count) {
    const uint8_t *bytes = source;
    format f = format_of(element);
    switch (element) {
    case KV_F32: memcpy(target, source, count * 4); return;
    case KV_BF16:
        for (size_t i = 0; i < count; i++) {
            uint32_t word = (uint32_t)bytes[2 * i] << 16 | (uint32_t)bytes[2 * i + 1] << 24;
            memcpy(target + i, &word, 4);
        }
        return;
    case KV_F16:
        for (size_t i = 0; i < count; i++) target[i] = small_to_float(f, bytes[2 * i] | (uint32_t)bytes[2 * i + 1] << 8);
        return;
    default:
        for (size_t i = 0; i < count; i++) target[i] = small_to_float(f, bytes[i]);
    }
}

size_t scalar_from_float(kv_element element, const float *source, void *target, size_t count) {
    uint8_t *bytes = target;
    format f = format_of(element);
    float limit = largest(f);
    size_t clamped = 0;
    switch (element) {
    case KV_F32:
        memcpy(target, source, count * 4);
        return 0;
    case KV_BF16:
        for (size_t i = 0; i < count; i++) {
            uint32_t word;
            memcpy(&word, source + i, 4);
            if ((word & 0x7F800000u) == 0x7F800000u) {
                clamped++;
                word = isnan(source[i]) ? 0 : (word & 0x80000000u) | 0x7F7F0000u;
            } else {
                word += 0x7FFFu + (word >> 16 & 1);
                if ((word & 0x7F800000u) == 0x7F800000u) {
                    clamped++;
                    word = (word & 0x80000000u) | 0x7F7F0000u;
                }
            }
            bytes[2 * i] = word >> 16;
            bytes[2 * i + 1] = word >> 24;
        }
        return clamped;
    case KV_F16:
        for (size_t i = 0; i < count; i++) {
            uint32_t word = float_to_small(f, source[i], limit, &clamped);
            bytes[2 * i] = word;
            bytes[2 * i + 1] = word >> 8;
        }
        return clamped;
    default:
        for (size_t i = 0; i < count; i++) bytes[i] = float_to_small(f, source[i], limit, &clamped);
        return clamped;
    }
}
