#include "x86.h"

#if defined(__x86_64__)
static const kv_kernels avx2 = {
    .name = "avx2",
    .convert = {avx2_to_float, avx2_from_float},
    .rows = {avx2_scale_offset, avx2_multiply, avx2_rotate},
    .transform = {7, 1, avx2_inverse, avx2_turn},
    .rans = {avx2_rans_decode, avx2_decode_stream, avx2_cost},
};

static const kv_kernels avx512 = {
    .name = "avx512-vnni",
    .convert = {avx2_to_float, avx2_from_float},
    .rows = {avx2_scale_offset, avx512_multiply, avx2_rotate},
    .transform = {8, 1, vnni_inverse, vnni_turn},
    .rans = {vnni_rans_decode, vnni_decode_stream, avx2_cost},
};

static const kv_kernels amx = {
    .name = "amx-int8",
    .convert = {avx2_to_float, avx2_from_float},
    .rows = {avx2_scale_offset, avx512_multiply, avx2_rotate},
    .transform = {8, AMX_LINE, amx_inverse, vnni_turn},
    .rans = {vnni_rans_decode, vnni_decode_stream, avx2_cost},
};

const kv_kernels *kv_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") ? &avx2 : NULL;
}

const kv_kernels *kv_avx512(void) {
    return kv_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("popcnt")
               ? &avx512
               : NULL;
}

// Asked for before any thread multiplies; the threads of a process have it together.
const kv_kernels *kv_amx(void) { return kv_avx512() && amx_is_allowed() ? &amx : NULL; }
#else
const kv_kernels *kv_avx2(void) { return NULL; }
const kv_kernels *kv_avx512(void) { return NULL; }
const kv_kernels *kv_amx(void) { return NULL; }
#endif
