#include "tables.h"

static const kv_kernels scalar_table = {"scalar", scalar_to_float, scalar_from_float, scalar_inverse};

const kv_kernels *kv_scalar(void) { return &scalar_table; }

const kv_kernels *kv_best(void) {
    const kv_kernels *best = kv_avx512();
    if (!best) best = kv_avx2();
    return best ? best : &scalar_table;
}
