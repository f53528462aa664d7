// Hot loops of the codec, a header a family. The scalar kernels are the specification; every other tier returns the same
// bits. All functions are pure: they touch only the memory they are given and are safe to call from any thread.
#ifndef KVTC_CKERNELS_H
#define KVTC_CKERNELS_H

#include "kv_convert.h"
#include "kv_page.h"
#include "kv_planes.h"
#include "kv_quantise.h"
#include "kv_rans.h"
#include "kv_rows.h"
#include "kv_transform.h"

// The kernels of one tier: those that are written for an instruction set, a table a family.
struct kv_kernels {
    const char *name;
    kv_convert_kernels convert;
    kv_row_kernels rows;
    kv_transform_kernels transform;
    kv_rans_kernels rans;
};

// Tiers; NULL where the CPU lacks AVX2, FMA and F16C; AVX-512 BW, VL and VNNI; AMX's int8 tiles, or the system doesn't let
// the process use them; or isn't an ARM of 64 bits.
const kv_kernels *kv_scalar(void);
const kv_kernels *kv_avx2(void);
const kv_kernels *kv_avx512(void);
const kv_kernels *kv_amx(void);
const kv_kernels *kv_neon(void);
// The best of them, or the one that the environment variable KVTC_KERNELS names; NULL where that one can't run here.
const kv_kernels *kv_best(void);

#endif
