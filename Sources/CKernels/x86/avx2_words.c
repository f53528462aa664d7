#include "words.h"

#if defined(__x86_64__)
// Eight words in the order in which the lanes of a mask take them: lane i gets word popcount(mask & (2^i − 1)).
#define LANE(M, I) __builtin_popcount((M) & ((1u << (I)) - 1))
#define ROW(M) {LANE(M, 0), LANE(M, 1), LANE(M, 2), LANE(M, 3), LANE(M, 4), LANE(M, 5), LANE(M, 6), LANE(M, 7)}
#define ROW4(M) ROW(M), ROW((M) + 1), ROW((M) + 2), ROW((M) + 3)
#define ROW16(M) ROW4(M), ROW4((M) + 4), ROW4((M) + 8), ROW4((M) + 12)
#define ROW64(M) ROW16(M), ROW16((M) + 16), ROW16((M) + 32), ROW16((M) + 48)
const uint8_t avx2_word_order[256][8] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};
#endif
