// Counts what the calling thread allocates, by standing in for the C library's allocator in the test program.
#ifndef KVTC_ALLOCATION_COUNT_H
#define KVTC_ALLOCATION_COUNT_H

#include <stdint.h>

// Allocations of this thread so far.
uint64_t kv_allocation_count(void);
// Whether they are counted: not where a sanitizer or another C library has the allocator.
int kv_counts_allocations(void);

#endif
