#include "../scalar/scalar.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

static void neon_to_float(kv_element element, const void *source, float *target, size_t count) {
    size_t i = 0;
    if (element == KV_F16)
        for (; i + 4 <= count; i += 4)
            vst1q_f32(target + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)source + 2 * i))));
    size_t width = element == KV_F32 ? 4 : element == KV_E4M3 || element == KV_E5M2 ? 1 : 2;
    scalar_to_float(element, (const uint8_t *)source + i * width, target + i, count - i);
}

static size_t neon_from_float(kv_element element, const float *source, void *target, size_t count) {
    if (element != KV_F16) return scalar_from_float(element, source, target, count);
    size_t i = 0, clamped = 0;
    for (; i + 4 <= count; i += 4) {
        float32x4_t v = vld1q_f32(source + i);
        if (vminvq_u32(vcleq_f32(vabsq_f32(v), vdupq_n_f32(65504.0f))) == 0)
            clamped += scalar_from_float(element, source + i, (uint8_t *)target + 2 * i, 4);
        else
            vst1_u8((uint8_t *)target + 2 * i, vreinterpret_u8_f16(vcvt_f16_f32(v)));
    }
    return clamped + scalar_from_float(element, source + i, (uint8_t *)target + 2 * i, count - i);
}

// 16 columns × one token; digits lose their excess, so no correction is needed.
static void neon_inverse(const kv_inverse_job *job) {
    const kv_term *terms = job->terms;
    const size_t term_count = job->term_count, stride = job->stride;
    const uint32_t slab = job->slab, tokens = job->tokens, first = job->first, count = job->count;
    const uint8_t *tile = job->tile;
    float *target = job->target;
    const uint8x16_t excess = vdupq_n_u8(128);
    for (int half = 0; half < 2; half++)
        for (uint32_t t = 0; t < count; t++) {
            int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
            for (size_t i = 0; i < term_count; i++) {
                kv_term term = terms[i];
                const uint8_t *digits = tile + ((size_t)term.first * KV_TILE + 16 * half) * KV_QUAD;
                const int8_t *codes = term.codes + ((size_t)slab * KV_SLAB * term.quads + first + t) * KV_QUAD;
                // Pairs of a column's four digits side by side; joined at the end.
                int32x4_t low[4], high[4];
                for (int k = 0; k < 4; k++) low[k] = high[k] = vdupq_n_s32(0);
                for (uint32_t q = 0; q < term.quads; q++, digits += KV_TILE * KV_QUAD, codes += tokens * KV_QUAD) {
                    int32_t quad;
                    memcpy(&quad, codes, 4);
                    int8x16_t code = vreinterpretq_s8_s32(vdupq_n_s32(quad));
                    for (int k = 0; k < 4; k++) {
                        int8x16_t digit = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(digits + 16 * k), excess));
                        low[k] = vpadalq_s16(low[k], vmull_s8(vget_low_s8(digit), vget_low_s8(code)));
                        high[k] = vpadalq_s16(high[k], vmull_high_s8(digit, code));
                    }
                }
                for (int k = 0; k < 4; k++)
                    sum[k] = vaddq_s32(vshlq_s32(sum[k], vdupq_n_s32(term.shift)), vpaddq_s32(low[k], high[k]));
                if (term.scale == 0) continue;
                for (int k = 0; k < 4; k++) {
                    float *to = target + t * stride + 16 * half + 4 * k;
                    vst1q_f32(to, vaddq_f32(vld1q_f32(to), vmulq_f32(vcvtq_f32_s32(sum[k]), vdupq_n_f32(term.scale))));
                    sum[k] = vdupq_n_s32(0);
                }
            }
        }
}

// The compiler's own vectors do for the rest: no operation is reordered.
static const kv_kernels tier = {
    .name = "neon",
    .convert = {neon_to_float, neon_from_float},
    .rows = {scalar_scale_offset, scalar_multiply, scalar_rotate},
    .transform = {8, 1, neon_inverse, scalar_turn},
    .rans = {scalar_rans_decode, scalar_decode_stream, scalar_cost},
};

const kv_kernels *kv_neon(void) { return &tier; }
#else
const kv_kernels *kv_neon(void) { return NULL; }
#endif
