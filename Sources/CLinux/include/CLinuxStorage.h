// What the store needs of Linux and Swift's Glibc module does not import. Results are -errno on failure.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// Makes an anonymous memory file of `bytes` bytes, close-on-exec, sealed against growing, shrinking and new seals.
/// Returns the descriptor.
int clinux_storage_memfd(const char *name, size_t bytes);

/// Makes an anonymous memory file that holds a copy of the bytes, close-on-exec, sealed against growing, shrinking, writing
/// and new seals. Returns the descriptor.
int clinux_storage_sealed_copy(const char *name, const void *bytes, size_t count);

/// Stores a word at an address that is a multiple of 8, all of it at once, after everything stored before. Being a call
/// into another module it also keeps the compiler from moving later stores before it.
void clinux_storage_publish(void *word, uint64_t value);

/// Takes an exclusive advisory lock on the open file without waiting; -EWOULDBLOCK when another holder exists.
int clinux_storage_lock(int fd);

/// Asks for the cache line at an address that will be needed soon; any address is fine.
static inline void clinux_prefetch(const void *address) { __builtin_prefetch(address); }
