// The other sides of the socket benchmark: a raw Unix-socket transfer and a Redis client that copies no byte it need not.
// Results are 0 or -errno; -EPROTO for an answer that is not the expected one.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// A connected Unix stream socket, or -errno.
int peer_connect(const char *path);

/// Serves a connected socket on the calling thread until the other end closes: reads a number of bytes as a u64 and sends
/// that many from `source`, which holds `capacity`.
int peer_serve_transfers(int socket, const uint8_t *source, size_t capacity);
/// Asks the serving end for `length` bytes and receives them.
int peer_transfer(int socket, uint8_t *target, size_t length);

/// SETs `count` values of `length` bytes, which lie one after another at `values`, in a pipeline. Value i goes under
/// the 32 bytes at keys + 32·i.
int peer_redis_set(int socket, const uint8_t *keys, size_t count, const uint8_t *values, size_t length);
/// GETs them into `values`.
int peer_redis_get(int socket, const uint8_t *keys, size_t count, uint8_t *values, size_t length);
/// Removes every key.
int peer_redis_flush(int socket);

/// Opens a file for reading; `direct` reads pass by the page cache. The descriptor, or -errno.
int peer_open(const char *path, int direct);
