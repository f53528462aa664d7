#include "tables.h"

#include <stdlib.h>
#include <string.h>

static const kv_kernels scalar_table = {"scalar",    8,           scalar_to_float,     scalar_from_float, scalar_inverse,
                                        scalar_turn, scalar_scale_offset, scalar_multiply, scalar_rotate, scalar_rans_decode, scalar_cost};

const kv_kernels *kv_scalar(void) { return &scalar_table; }

const kv_kernels *kv_best(void) {
    const kv_kernels *tables[] = {kv_avx512(), kv_avx2(), kv_neon(), kv_scalar()};
    const char *wanted = getenv("KVTC_KERNELS");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (tables[i] && (!wanted || !*wanted || !strcmp(wanted, tables[i]->name))) return tables[i];
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
    return kernels->cost(table, codes, count, shift);
}
