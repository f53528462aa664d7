#include "COpenBLAS.h"

// Chains that do not wait for each other: enough for two instructions a cycle of a latency of five.
enum { CHAINS = 12 };

#if defined(__x86_64__)
#include <immintrin.h>

#define LOOP(name, features, lanes, flops, type, set, step)                            \
    __attribute__((target(features))) static double name(uint64_t rounds) {            \
        type sums[CHAINS], factor = set(0.999f), addend = set(0.001f);                 \
        for (int i = 0; i < CHAINS; i++) sums[i] = set((float)i);                      \
        for (uint64_t round = 0; round < rounds; round++) {                            \
            _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++) sums[i] = step; \
        }                                                                              \
        for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : : "x"(sums[i]));        \
        return (double)rounds * CHAINS * lanes * flops;                                \
    }
LOOP(loop_512, "avx512f", 16, 2, __m512, _mm512_set1_ps, _mm512_fmadd_ps(sums[i], factor, addend))
LOOP(loop_256, "avx2,fma", 8, 2, __m256, _mm256_set1_ps, _mm256_fmadd_ps(sums[i], factor, addend))
LOOP(loop_128, "sse2", 4, 2, __m128, _mm_set1_ps, _mm_add_ps(_mm_mul_ps(sums[i], factor), addend))

double openblas_peak_loop(uint64_t rounds) {
    return __builtin_cpu_supports("avx512f")                                   ? loop_512(rounds)
           : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? loop_256(rounds)
                                                                              : loop_128(rounds);
}
#elif defined(__aarch64__)
#include <arm_neon.h>

double openblas_peak_loop(uint64_t rounds) {
    float32x4_t sums[CHAINS], factor = vdupq_n_f32(0.999f), addend = vdupq_n_f32(0.001f);
    for (int i = 0; i < CHAINS; i++) sums[i] = vdupq_n_f32((float)i);
    for (uint64_t round = 0; round < rounds; round++) {
        _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++) sums[i] = vfmaq_f32(addend, sums[i], factor);
    }
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : : "w"(sums[i]));
    return (double)rounds * CHAINS * 4 * 2;
}
#else
double openblas_peak_loop(uint64_t rounds) {
    float sums[CHAINS], factor = 0.999f, addend = 0.001f;
    for (int i = 0; i < CHAINS; i++) sums[i] = (float)i;
    for (uint64_t round = 0; round < rounds; round++) {
        for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * factor + addend;
    }
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : : "m"(sums[i]));
    return (double)rounds * CHAINS * 2;
}
#endif
