// Rows of a block and pages in the layout of an engine.
#ifndef KVTC_KV_PAGE_H
#define KVTC_KV_PAGE_H

#include <stddef.h>
#include <stdint.h>

#include "kv_convert.h"
#include "kv_rows.h"
#include "kv_transform.h"

typedef struct kv_kernels kv_kernels;

// Where `length` elements of a token's row, from `column` on, lie in a page of another layout: element (t, i) is at
// base + t · token_stride + i · element_stride. All count elements.
typedef struct {
    uint32_t column, length;
    size_t base, token_stride, element_stride;
} kv_run;

// Where whole rows lie.
typedef struct {
    const kv_run *runs;
    size_t run_count;
    size_t bytes;     // of an element
    size_t row_bytes; // of a row in a block
} kv_placement;

// Copies to memory that is not read soon: past the caches, whose lines need not be fetched from memory to be overwritten.
void kv_copy_past_caches(uint8_t *target, const uint8_t *source, size_t bytes);

// Copies `count` rows to or from a page. Row r of `rows` is token tokens[r] of the page (NULL: first + r).
void kv_scatter_rows(const kv_placement *, const uint8_t *rows, const uint32_t *tokens, size_t first, size_t count,
                     int past_caches, uint8_t *page);
void kv_gather_rows(const kv_placement *, const uint8_t *page, size_t first, size_t count, uint8_t *rows);

// What the coded rows of a page need to become elements: x = Σ; x = matrix · x where there are matrices;
// x · inverse_weight + mean; rotation; rounding.
typedef struct {
    const kv_kernels *kernels;
    const float *inverse_weight, *mean; // of a row
    const float *angles;                // [coded row][angle_stride]
    size_t angle_stride;                // floats
    const uint32_t *tokens;             // of the page, one a coded row
    uint32_t rows;                      // coded rows
    kv_element element;
    uint8_t bytes;                      // of an element
    uint8_t *output;                    // the page
} kv_synthesis;

// Columns of a row that are made together: their basis, and what is done to them.
typedef struct {
    uint32_t begin, end;          // of the row, at most 8192 columns
    uint32_t basis_begin;         // the basis's first column
    const uint8_t *packed;        // kv_packed_size bytes
    size_t quads;                 // of digits
    const kv_term *terms;
    size_t term_count;
    const kv_block *blocks;       // matrices; NULL where the profile has none
    size_t block_count;
    const kv_rotation *rotations; // in columns of the row
    size_t rotation_count;
    const kv_run *runs;           // in columns of the row
    size_t run_count;
} kv_chunk;

void kv_synthesise(const kv_synthesis *, const kv_chunk *);

#endif
