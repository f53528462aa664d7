#include "tables.h"

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
