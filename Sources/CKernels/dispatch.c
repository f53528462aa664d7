#include "tables.h"

#include <stdlib.h>
#include <string.h>

static const kv_kernels scalar_table = {"scalar", scalar_to_float, scalar_from_float, scalar_inverse, scalar_scale_offset,
                                        scalar_rotate, scalar_rans_decode};

const kv_kernels *kv_scalar(void) { return &scalar_table; }

const kv_kernels *kv_best(void) {
    const kv_kernels *tables[] = {kv_avx512(), kv_avx2(), kv_neon(), kv_scalar()};
    const char *wanted = getenv("KVTC_KERNELS");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (tables[i] && (!wanted || !*wanted || !strcmp(wanted, tables[i]->name))) return tables[i];
    return NULL;
}
