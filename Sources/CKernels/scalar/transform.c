#include "scalar.h"

#include <string.h>

void scalar_inverse(const kv_inverse_job *job) {
    for (uint32_t t = 0; t < job->count; t++)
        for (int c = 0; c < KV_TILE; c++) {
            // Unsigned, because sums may wrap on the way to a result that fits.
            uint32_t sum = 0;
            for (size_t i = 0; i < job->term_count; i++) {
                kv_term term = job->terms[i];
                const uint8_t *digits = job->tile + ((size_t)term.first * KV_TILE + c) * KV_QUAD;
                const int8_t *codes = term.codes + ((size_t)job->slab * KV_SLAB * term.quads + job->first + t) * KV_QUAD;
                sum <<= term.shift;
                for (uint32_t q = 0; q < term.quads; q++)
                    for (int k = 0; k < KV_QUAD; k++)
                        sum += (uint32_t)(codes[(size_t)q * job->tokens * KV_QUAD + k] *
                                          (digits[(size_t)q * KV_TILE * KV_QUAD + k] - 128));
                if (term.scale == 0) continue;
                job->target[t * job->stride + c] += (float)(int32_t)sum * term.scale;
                sum = 0;
            }
        }
}

void scalar_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                 uint8_t *turned) {
    for (size_t i = 0; i < tiles * QUADS_A_TILE; i++) {
        const uint8_t *at = packed + (i / QUADS_A_TILE * quads + first) * TILE_QUAD + i % QUADS_A_TILE * KV_QUAD * KV_QUAD;
        uint8_t *to = turned + places[i] * TILE_QUAD;
        memset(to, 128, TILE_QUAD);
        for (size_t digit = 0; digit < count * KV_QUAD; digit++)
            for (size_t c = 0; c < KV_QUAD; c++)
                to[digit * KV_QUAD + c] = at[digit / KV_QUAD * TILE_QUAD + c * KV_QUAD + digit % KV_QUAD];
    }
}
