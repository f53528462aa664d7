// Shared inside CKernels: the functions the tables are made of.
#ifndef KVTC_TABLES_H
#define KVTC_TABLES_H

#include "include/CKernels.h"

enum { QUADS_A_TILE = KV_TILE / KV_QUAD, TILE_QUAD = KV_TILE * KV_QUAD };

void scalar_to_float(kv_element, const void *source, float *target, size_t count);
size_t scalar_from_float(kv_element, const float *source, void *target, size_t count);
void scalar_inverse(const uint8_t *tile, const kv_term *terms, size_t term_count, uint32_t slab, uint32_t tokens,
                    uint32_t first, uint32_t count, float *target, size_t stride, kv_ahead *ahead);
void scalar_scale_offset(float *row, const float *scale, const float *offset, size_t count);
void scalar_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
void scalar_rotate(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction);
int scalar_rans_decode(const uint8_t *words, size_t word_count, const uint8_t *bits, size_t bits_length,
                       const kv_component *components, size_t count, size_t tokens, int16_t *codes, uint16_t *largest);
void scalar_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
                 uint8_t *turned);
uint64_t scalar_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);

// x86-64 only.
void avx2_turn(const uint8_t *packed, size_t quads, size_t first, size_t count, const uint32_t *places, size_t tiles,
               uint8_t *turned);
uint64_t avx2_cost(const kv_table *table, const int16_t *codes, size_t count, unsigned shift);
void avx2_to_float(kv_element, const void *source, float *target, size_t count);
size_t avx2_from_float(kv_element, const float *source, void *target, size_t count);
void avx2_scale_offset(float *row, const float *scale, const float *offset, size_t count);
void avx2_multiply(float *rows, size_t count, size_t stride, const float *matrix, size_t width);
void avx2_rotate(float *row, const kv_rotation *rotations, size_t count, const float *angles, int direction);
int avx2_rans_decode(const uint8_t *words, size_t word_count, const uint8_t *bits, size_t bits_length,
                     const kv_component *components, size_t count, size_t tokens, int16_t *codes, uint16_t *largest);

// Loops that compilers vectorise well, built for AVX2 too and chosen when the program is loaded. Without contraction and
// reassociation every build gives the same bits. Not under ThreadSanitizer: what it puts into the choosing function runs before
// it is set up, and crashes.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KV_THREAD_SANITIZER
#endif
#endif
#if defined(__x86_64__) && defined(__linux__) && !defined(KV_THREAD_SANITIZER)
#define KV_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define KV_CLONES
#endif

// Raw bits of an entropy-coded stream, lowest first.
typedef struct {
    const uint8_t *next, *end;
    uint64_t pool;
    unsigned filled;
} kv_bit_reader;

// Codes whose symbols (less the centre) are in `row` get their raw bits; −1 where those end or a code leaves 16 bits.
int kv_finish_codes(kv_bit_reader *, kv_component, size_t tokens, int16_t *row, uint16_t *largest);

#endif
