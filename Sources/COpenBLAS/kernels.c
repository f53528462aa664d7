#include "COpenBLAS.h"

#include <stdlib.h>
#include <string.h>

// OpenBLAS chooses by family and model: of a processor newer than itself it may take the kernels of the oldest that it knows, a
// fifth as fast (0.3.21 on Intel's model 207). What counts is which instructions there are, and whether the system saves
// their registers; the x86-64 levels ask both (System V ABI, "Micro-Architecture Levels"). Later kernels for AVX-512,
// Cooperlake and SapphireRapids, differ in 16-bit products alone: float32 loses nothing where the library knows better.
const char *openblas_best_kernels(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return "SkylakeX";
    if (__builtin_cpu_supports("x86-64-v3")) return __builtin_cpu_is("amd") ? "Zen" : "Haswell";
    if (__builtin_cpu_supports("avx")) return "Sandybridge";
    if (__builtin_cpu_supports("x86-64-v2")) return "Nehalem";
#endif
    return NULL;
}

// Not before main: a Swift runtime that is linked in finds the arguments behind the environment as the kernel laid it out, which
// the first setenv moves. Who reads the environment at the same time sees the old place or the new one; both stay.
void openblas_choose_kernels(void) {
    const char *wanted = getenv("OPENBLAS_CORETYPE"), *best = openblas_best_kernels();
    if ((!wanted || !*wanted) && best) setenv("OPENBLAS_CORETYPE", best, 1);
}
