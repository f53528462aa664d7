#include <stdint.h>
#if defined(__x86_64__)
// Chooses by the processor: with AVX2 more than twice as fast as the plain entry points, which stay with SSE2. Not
// xxh_x86dispatch.h as a whole, because its macros are nothing that Swift could see.
#include <xxh_x86dispatch.h>
#undef XXH3_64bits
#undef XXH3_64bits_withSeed
#undef XXH3_64bits_update
#define kvtc_xxh3_seeded XXH3_64bits_withSeed_dispatch
#define kvtc_xxh3_add XXH3_64bits_update_dispatch
#else
#include <xxhash.h>
#define kvtc_xxh3_seeded XXH3_64bits_withSeed
#define kvtc_xxh3_add XXH3_64bits_update
#endif

/// XXH3-64.
static inline uint64_t xxh3(const void *bytes, size_t length, uint64_t seed) {
    return kvtc_xxh3_seeded(bytes, length, seed);
}

/// Goes on with an XXH3-64.
static inline void xxh3_add(XXH3_state_t *state, const void *bytes, size_t length) {
    kvtc_xxh3_add(state, bytes, length);
}
