#include "include/CKernels.h"

#include <stdlib.h>
#include <string.h>

const kv_kernels *kv_best(void) {
    const kv_kernels *tiers[] = {kv_amx(), kv_avx512(), kv_avx2(), kv_neon(), kv_scalar()};
    const char *wanted = getenv("KVTC_KERNELS");
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++)
        if (tiers[i] && (!wanted || !*wanted || !strcmp(wanted, tiers[i]->name))) return tiers[i];
    return NULL;
}

uint64_t kv_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift) {
    // Whichever thread comes first, all find the same.
    static const kv_kernels *_Atomic best;
    const kv_kernels *kernels = best;
    if (!kernels) {
        kernels = kv_best() ? kv_best() : kv_scalar();
        best = kernels;
    }
    return kernels->rans.cost(table, codes, count, shift);
}
