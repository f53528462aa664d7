#include "../include/kv_convert.h"

#include <stdint.h>
#include <string.h>

// An exponent of all ones carries into the next bit when its lowest one is added: no comparison, so that compilers vectorise
// it, and no early exit for the same reason.
int kv_all_finite(kv_element element, const void *row, size_t count) {
    const uint8_t *bytes = row;
    switch (element) {
    case KV_F32: {
        uint32_t bad = 0;
        for (size_t i = 0; i < count; i++) {
            uint32_t word;
            memcpy(&word, bytes + 4 * i, sizeof word);
            bad |= (word & 0x7F800000u) + 0x00800000u;
        }
        return !(bad & 0x80000000u);
    }
    case KV_BF16:
    case KV_F16: {
        uint16_t exponent = element == KV_F16 ? 0x7C00 : 0x7F80, lowest = element == KV_F16 ? 0x0400 : 0x0080, bad = 0;
        for (size_t i = 0; i < count; i++) {
            uint16_t word;
            memcpy(&word, bytes + 2 * i, sizeof word);
            bad |= (uint16_t)((word & exponent) + lowest);
        }
        return !(bad & 0x8000);
    }
    default: {
        // E4M3 has no infinities: only all ones is not a number.
        uint8_t exponent = element == KV_E4M3 ? 0x7F : 0x7C, lowest = element == KV_E4M3 ? 1 : 4, bad = 0;
        for (size_t i = 0; i < count; i++) bad |= (uint8_t)((bytes[i] & exponent) + lowest);
        return !(bad & 0x80);
    }
    }
}
