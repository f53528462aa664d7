#include "scalar.h"

static const kv_kernels tier = {
    .name = "scalar",
    .convert = {scalar_to_float, scalar_from_float},
    .rows = {scalar_scale_offset, scalar_multiply, scalar_rotate},
    .transform = {8, 1, scalar_inverse, scalar_turn},
    .rans = {scalar_rans_decode, scalar_decode_stream, scalar_cost},
};

const kv_kernels *kv_scalar(void) { return &tier; }
