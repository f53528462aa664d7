// What the store needs of Linux and Swift's Glibc module does not import. Results are -errno on failure.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// Makes an anonymous memory file of `bytes` bytes, close-on-exec, sealed against growing, shrinking and new seals.
/// Returns the descriptor.
int clinux_storage_memfd(const char *name, size_t bytes);

/// Takes an exclusive advisory lock on the open file without waiting; -EWOULDBLOCK when another holder exists.
int clinux_storage_lock(int fd);
