// What Swift's Glibc module does not import. Results are -errno on failure.
#pragma once
#include <stddef.h>
#include <poll.h>
#include <stdint.h>
#include <sys/uio.h>

#include "CLinuxStorage.h"
#include "CLinuxTerminal.h"
#include "CLinuxText.h"

/// The most descriptors one message may bring.
#define CLINUX_MAX_FDS 16

/// A new close-on-exec Unix stream socket.
int clinux_unix_socket(void);
/// Binds the socket to a path; -ENAMETOOLONG when the path does not fit into an address.
int clinux_unix_bind(int fd, const char *path);
/// Connects the socket to a path.
// -ETIMEDOUT where nobody accepts for so long; 0: waits without end.
int clinux_unix_connect(int fd, const char *path, int64_t milliseconds);
/// Two connected sockets.
int clinux_unix_pair(int fds[2]);
/// Takes a waiting connection, close-on-exec.
int clinux_accept(int fd);
/// Who is at the other end, as the kernel knows it.
int clinux_peer(int fd, uint32_t *uid, uint32_t *gid, int32_t *pid);
/// The supplementary groups of the process at the other end; how many there are, of which the first `capacity` are stored.
int clinux_peer_groups(int fd, uint32_t *groups, size_t capacity);
/// Sends the parts, or the first bytes of them, without raising SIGPIPE; `attached` (or -1) is a descriptor that travels with
/// the first byte. With `no_wait` -EAGAIN where there is no room.
ptrdiff_t clinux_send(int fd, const struct iovec *parts, size_t count, int attached, int no_wait);
/// How a receive waits: not at all (-EAGAIN), for some bytes, or for all of them unless a signal or the time limit of
/// clinux_limit_receive comes first.
enum clinux_patience { CLINUX_NO_WAIT, CLINUX_SOME, CLINUX_ALL };
/// Receives bytes and up to `capacity` (at most CLINUX_MAX_FDS) descriptors. More than that is -EBADMSG and all are
/// closed; with capacity 0 any is -EBADMSG, and the kernel drops them.
ptrdiff_t clinux_receive(int fd, void *bytes, size_t length, enum clinux_patience patience, int *attached,
                         size_t capacity, size_t *count);
/// Receives that wait return -EAGAIN (or what came) after so many milliseconds; 0 for no limit.
int clinux_limit_receive(int fd, int64_t milliseconds);
/// Waits for one of the descriptors, for so many nanoseconds at most (negative: without end); how many are ready.
int clinux_poll(struct pollfd *set, size_t count, int64_t nanoseconds);
/// A counter that poll can wait for.
int clinux_eventfd(void);
/// 1 when the memory file can neither shrink nor grow nor lose that property.
int clinux_is_sealed_arena(int fd);
/// 1 while the kernel's clock follows a source of time, else 0.
int clinux_is_clock_synchronised(void);
/// Processors this process may run on.
int clinux_processors(void);
/// Has all threads share one heap: each heap more reserves 64 MiB of address space and more.
void clinux_share_heap(void);
/// Names a thread (15 bytes at most) for debuggers and top.
void clinux_name_thread(unsigned long thread, const char *name);
/// Lets the calling thread run for at most so many nanoseconds at a time, as often as before. A thread with shorter turns that
/// wakes up goes before one with longer turns that runs (Linux 6.12 and later; older ones take no notice).
int clinux_limit_turns(uint64_t nanoseconds);
/// Blocks the signals that clinux_wait_signal waits for, in this thread and those it starts, and no others; ignores those
/// that end a process by default and mean nothing here, whatever the parent did with either.
void clinux_take_signals(void);
/// Waits for TERM, INT, QUIT, PWR, XCPU or HUP; the number, or -EAGAIN after `milliseconds`.
int clinux_wait_signal(int64_t milliseconds);
/// Sends a datagram to the service manager's socket (a path, or "@name"), with a descriptor when `attached` is not -1. Waits
/// so long for room in its queue, else -EAGAIN.
int clinux_notify(const char *address, const char *text, int attached, int milliseconds);
/// Waits until the service manager has dealt with every datagram sent before; -ETIMEDOUT when it does not.
int clinux_notify_barrier(const char *address, int milliseconds);
/// The path that a Unix socket is bound to, empty for none; its length.
int clinux_socket_path(int fd, char *path, size_t capacity);
/// A descriptor of the process.
int clinux_pidfd(int32_t pid);
/// A descriptor of the process at the other end of a socket; -ENOPROTOOPT where the kernel has none.
int clinux_peer_pidfd(int fd);
// Whether either side has ended the connection, whatever is still to be read.
int clinux_has_ended(int descriptor);

