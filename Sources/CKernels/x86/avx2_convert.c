#include "x86.h"

#if defined(__x86_64__)
#include <immintrin.h>

AVX2 void avx2_to_float(kv_element element, const void *source, float *target, size_t count) {
    const uint8_t *bytes = source;
    size_t i = 0;
    if (element == KV_F16)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(target + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(bytes + 2 * i))));
    size_t width = element == KV_F32 ? 4 : element == KV_E4M3 || element == KV_E5M2 ? 1 : 2;
    scalar_to_float(element, bytes + i * width, target + i, count - i);
}

AVX2 size_t avx2_from_float(kv_element element, const float *source, void *target, size_t count) {
    if (element != KV_F16) return scalar_from_float(element, source, target, count);
    uint8_t *bytes = target;
    const __m256 limit = _mm256_set1_ps(65504.0f), sign = _mm256_set1_ps(-0.0f);
    size_t i = 0, clamped = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 v = _mm256_loadu_ps(source + i);
        __m256 magnitude = _mm256_andnot_ps(sign, v);
        int bad = _mm256_movemask_ps(_mm256_cmp_ps(magnitude, limit, _CMP_NLE_UQ));
        if (bad) {
            clamped += scalar_from_float(element, source + i, bytes + 2 * i, 8);
            continue;
        }
        _mm_storeu_si128((__m128i *)(bytes + 2 * i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    return clamped + scalar_from_float(element, source + i, bytes + 2 * i, count - i);
}
#endif
