#include "../include/kv_quantise.h"
#include "clones.h"

#include <math.h>

KV_CLONES void kv_quantise(const float *values, size_t count, float inverse_step, int limit, int16_t *codes) {
    const float bound = (float)limit, magic = 12582912.0f; // 1.5 · 2^23: adding it rounds to nearest even
    for (size_t i = 0; i < count; i++) {
        float v = values[i] * inverse_step;
        v = v > bound ? bound : v;
        v = v > -bound ? v : -bound;
        codes[i] = (int16_t)(int)((v + magic) - magic);
    }
}

KV_CLONES kv_sums kv_error(const float *values, const int16_t *codes, size_t count, float step) {
    // Partial sums: the loop vectorises without reordering arithmetic, and no addition waits for the one before it.
    enum { LANES = 32 };
    float error[LANES] = {0}, energy[LANES] = {0};
    double errors = 0, energies = 0;
    for (size_t i = 0; i < count;) {
        size_t end = count - i > 2048 ? i + 2048 : count;
        if (codes)
            for (; i + LANES <= end; i += LANES)
                for (int k = 0; k < LANES; k++) {
                    float v = values[i + k], d = v - (float)codes[i + k] * step;
                    error[k] += d * d;
                    energy[k] += v * v;
                }
        else
            for (; i + LANES <= end; i += LANES)
                for (int k = 0; k < LANES; k++) energy[k] += values[i + k] * values[i + k];
        for (; i < end; i++) {
            float v = values[i], d = codes ? v - (float)codes[i] * step : 0;
            error[0] += d * d;
            energy[0] += v * v;
        }
        for (int k = 0; k < LANES; k++) {
            errors += error[k];
            energies += energy[k];
            error[k] = energy[k] = 0;
        }
    }
    return (kv_sums){codes ? errors : energies, energies};
}

KV_CLONES void kv_relax(const float *restrict least, size_t count, float error, float *restrict next) {
    for (size_t i = 0; i < count; i++) {
        float sum = least[i] + error;
        next[i] = sum < next[i] ? sum : next[i];
    }
}

KV_CLONES float kv_peak(const float *values, size_t count) {
    float peaks[16] = {0}, peak = 0;
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int k = 0; k < 16; k++) {
            float magnitude = fabsf(values[i + k]);
            peaks[k] = magnitude > peaks[k] ? magnitude : peaks[k];
        }
    for (; i < count; i++) peak = fabsf(values[i]) > peak ? fabsf(values[i]) : peak;
    for (int k = 0; k < 16; k++) peak = peaks[k] > peak ? peaks[k] : peak;
    return peak;
}
