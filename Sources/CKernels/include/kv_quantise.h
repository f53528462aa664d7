// Quantisation, what it costs in accuracy, and the search for where to spend bits.
#ifndef KVTC_KV_QUANTISE_H
#define KVTC_KV_QUANTISE_H

#include <stddef.h>
#include <stdint.h>

// codes[i] = round-to-nearest(values[i] · inverse_step), clamped to ±limit.
void kv_quantise(const float *values, size_t count, float inverse_step, int limit, int16_t *codes);

// Largest magnitude.
float kv_peak(const float *values, size_t count);

// Squared error of codes · step against the values (codes NULL: all zero), and the values' own energy.
typedef struct {
    double error, energy;
} kv_sums;
kv_sums kv_error(const float *values, const int16_t *codes, size_t count, float step);

// One choice of a dynamic programme: next[i] = least[i] + error where that is less.
void kv_relax(const float *least, size_t count, float error, float *next);

#endif
