#include "../include/kv_rows.h"

#include <math.h>

// Cody–Waite reduction by π/2 (exact for positions below a million), then Taylor series to r^16, in plain double
// arithmetic: libm's last bit differs between releases, and decoded pages must not.
static void sine_cosine(double x, double *sine, double *cosine) {
    const double two_over_pi = 0x1.45f306dc9c883p-1;
    const double high = 0x1.921fb54400000p+0, middle = 0x1.0b4611a600000p-34, low = 0x1.3198a2e037073p-69;
    double k = rint(x * two_over_pi);
    double r = ((x - k * high) - k * middle) - k * low;
    double z = r * r;
    double s = -1.0 / 1307674368000.0, c = 1.0 / 20922789888000.0;
    s = s * z + 1.0 / 6227020800.0;
    s = s * z - 1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z - 1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z - 1.0 / 6.0;
    s = r + r * z * s;
    c = c * z - 1.0 / 87178291200.0;
    c = c * z + 1.0 / 479001600.0;
    c = c * z - 1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z - 1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z - 0.5;
    c = 1.0 + z * c;
    switch ((long long)k & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s;
    }
}

void kv_rotation_table(uint32_t position, const float *inverse_frequencies, size_t pairs, float *cos_sin) {
    for (size_t i = 0; i < pairs; i++) {
        double sine, cosine;
        sine_cosine((double)position * (double)inverse_frequencies[i], &sine, &cosine);
        cos_sin[2 * i] = (float)cosine;
        cos_sin[2 * i + 1] = (float)sine;
    }
}
