#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <unistd.h>

static int fill_address(const char *path, struct sockaddr_un *address) {
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

int clinux_unix_socket(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int clinux_unix_bind(int fd, const char *path) {
    struct sockaddr_un address;
    int code = fill_address(path, &address);
    if (code != 0) return code;
    return bind(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : -errno;
}

static int limit_send(int fd, int64_t milliseconds) {
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 ? 0 : -errno;
}

int clinux_unix_connect(int fd, const char *path, int64_t milliseconds) {
    struct sockaddr_un address;
    int code = fill_address(path, &address);
    // Where nobody accepts and the queue is full, connecting waits as long as sending does.
    if (code == 0) code = limit_send(fd, milliseconds);
    if (code != 0) return code;
    while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        if (errno != EINTR) return errno == EAGAIN ? -ETIMEDOUT : -errno;
    return limit_send(fd, 0);
}

int clinux_unix_pair(int fds[2]) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0 ? 0 : -errno;
}

int clinux_accept(int fd) {
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    return peer < 0 ? -errno : peer;
}

int clinux_peer(int fd, uint32_t *uid, uint32_t *gid, int32_t *pid) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return -errno;
    *uid = credentials.uid;
    *gid = credentials.gid;
    *pid = credentials.pid;
    return 0;
}

int clinux_peer_groups(int fd, uint32_t *groups, size_t capacity) {
    socklen_t length = (socklen_t)(capacity * sizeof *groups);
    // ERANGE says in `length` how much room it takes.
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) != 0 && errno != ERANGE) return -errno;
    return (int)(length / sizeof *groups);
}

ptrdiff_t clinux_send(int fd, const struct iovec *parts, size_t count, int attached, int no_wait) {
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = count};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    if (attached >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &attached, sizeof attached);
    }
    for (;;) {
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | (no_wait ? MSG_DONTWAIT : 0));
        if (sent >= 0) return sent;
        if (errno != EINTR) return -errno;
    }
}

int clinux_limit_receive(int fd, int64_t milliseconds) {
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 ? 0 : -errno;
}

ptrdiff_t clinux_receive(int fd, void *bytes, size_t length, enum clinux_patience patience, int *attached,
                         size_t capacity, size_t *count) {
    struct iovec part = {bytes, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union {
        char space[CMSG_SPACE(sizeof(int) * CLINUX_MAX_FDS)];
        struct cmsghdr align;
    } control;
    *count = 0;
    // Without room for control data the kernel itself drops descriptors that come along.
    if (capacity > 0) {
        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
    }
    ssize_t received;
    int flags = MSG_CMSG_CLOEXEC;
    if (patience == CLINUX_NO_WAIT) flags |= MSG_DONTWAIT;
    if (patience == CLINUX_ALL) flags |= MSG_WAITALL;
    while ((received = recvmsg(fd, &message, flags)) < 0)
        if (errno != EINTR) return -errno;
    if (capacity == 0) return message.msg_flags & MSG_CTRUNC ? -EBADMSG : received;
    int excess = (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t number = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < number; i++) {
            int one;
            memcpy(&one, CMSG_DATA(header) + i * sizeof one, sizeof one);
            if (*count < capacity) {
                attached[(*count)++] = one;
            } else {
                close(one);
                excess = 1;
            }
        }
    }
    if (excess) {
        for (size_t i = 0; i < *count; i++) close(attached[i]);
        *count = 0;
        return -EBADMSG;
    }
    return received;
}

int clinux_poll(struct pollfd *set, size_t count, int64_t nanoseconds) {
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int ready = ppoll(set, count, nanoseconds < 0 ? NULL : &time, NULL);
    return ready < 0 ? -errno : ready;
}

int clinux_eventfd(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int clinux_is_sealed_arena(int fd) {
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) return -errno;
    int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    // By mask: newer kernels add seals of their own (F_SEAL_EXEC).
    return (seals & wanted) == wanted;
}

int clinux_is_clock_synchronised(void) {
    // Without modes it only asks.
    struct timex state = {.modes = 0};
    if (adjtimex(&state) < 0) return -errno;
    return !(state.status & STA_UNSYNC);
}

int clinux_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void clinux_share_heap(void) { mallopt(M_ARENA_MAX, 1); }

void clinux_name_thread(unsigned long thread, const char *name) { pthread_setname_np((pthread_t)thread, name); }

// Signals that are waited for. PWR says that the power is going, XCPU that the kernel is about to kill.
static const int awaited[] = {SIGTERM, SIGINT, SIGQUIT, SIGPWR, SIGXCPU, SIGHUP};
// Signals that end or stop a process by default and are not sent for that. Those of faults, ABRT, KILL and STOP keep
// their meaning.
static const int ignored[] = {SIGPIPE, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,   SIGUSR1, SIGUSR2,
                              SIGSTKFLT, SIGXFSZ, SIGTSTP,  SIGTTIN, SIGTTOU};

static void awaited_signals(sigset_t *set) {
    sigemptyset(set);
    for (size_t i = 0; i < sizeof awaited / sizeof *awaited; i++) sigaddset(set, awaited[i]);
}

// Libraries may start threads before main (OpenBLAS does), and those do not block: without a handler, a signal that
// arrives while no thread waits would be delivered to one of them and end the process.
static pthread_t waiting_thread;
static void forward_signal(int number) { pthread_kill(waiting_thread, number); }

int clinux_limit_turns(uint64_t nanoseconds) {
    // struct sched_attr, which no header of glibc before 2.41 has.
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes, .policy = SCHED_OTHER, .nice = getpriority(PRIO_PROCESS, 0), .runtime = nanoseconds};
    return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0 ? 0 : -errno;
}

void clinux_take_signals(void) {
    sigset_t set;
    awaited_signals(&set);
    waiting_thread = pthread_self();
    struct sigaction action = {.sa_handler = SIG_IGN, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) sigaction(ignored[i], &action, NULL);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++) sigaction(number, &action, NULL);
    action.sa_handler = forward_signal;
    for (size_t i = 0; i < sizeof awaited / sizeof *awaited; i++) sigaction(awaited[i], &action, NULL);
    // Whatever the parent blocked: one that blocks SEGV would turn a fault into silence.
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

int clinux_wait_signal(int64_t milliseconds) {
    sigset_t set;
    awaited_signals(&set);
    struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    int number = sigtimedwait(&set, NULL, &limit);
    return number < 0 ? -errno : number;
}

int clinux_notify(const char *address, const char *text, int attached, int milliseconds) {
    struct sockaddr_un target;
    int code = fill_address(address, &target);
    if (code != 0) return code;
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(address);
    if (target.sun_path[0] == '@') target.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct iovec part = {(void *)text, strlen(text)};
    // Connected, so that poll knows whether the receiver's queue has room.
    ptrdiff_t sent = connect(fd, (struct sockaddr *)&target, length) == 0 ? -EAGAIN : -errno;
    for (int tries = 0; sent == -EAGAIN && tries < 2; tries++) {
        sent = clinux_send(fd, &part, 1, attached, 1);
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        if (sent == -EAGAIN && tries == 0 && poll(&room, 1, milliseconds) <= 0) break;
    }
    close(fd);
    return sent < 0 ? (int)sent : 0;
}

int clinux_notify_barrier(const char *address, int milliseconds) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
    int code = clinux_notify(address, "BARRIER=1", ends[1], milliseconds);
    close(ends[1]);
    // The other end is closed once all messages before have been dealt with.
    struct pollfd done = {.fd = ends[0]};
    if (code == 0 && poll(&done, 1, milliseconds) != 1) code = -ETIMEDOUT;
    close(ends[0]);
    return code;
}

int clinux_socket_path(int fd, char *path, size_t capacity) {
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0) return -errno;
    if (address.sun_family != AF_UNIX) return -EAFNOSUPPORT;
    size_t bytes = strnlen(address.sun_path, sizeof address.sun_path);
    if (bytes >= capacity) return -ENAMETOOLONG;
    memcpy(path, address.sun_path, bytes);
    path[bytes] = 0;
    return (int)bytes;
}

int clinux_pidfd(int32_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int clinux_peer_pidfd(int fd) {
    int peer = -1;
    socklen_t length = sizeof peer;
    // SO_PEERPIDFD, Linux 6.5 and later: 77 on every architecture with the generic numbers.
    if (getsockopt(fd, SOL_SOCKET, 77, &peer, &length) != 0) return -errno;
    return peer;
}

int clinux_has_ended(int descriptor) {
    struct pollfd set = {.fd = descriptor, .events = POLLRDHUP};
    return poll(&set, 1, 0) != 0;
}
