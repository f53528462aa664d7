#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

int clinux_unix_connect(int fd, const char *path) {
    struct sockaddr_un address;
    int code = fill_address(path, &address);
    if (code != 0) return code;
    while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        if (errno != EINTR) return -errno;
    return 0;
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

ptrdiff_t clinux_send(int fd, const struct iovec *parts, size_t count, int attached) {
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
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
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

int clinux_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void clinux_name_thread(unsigned long thread, const char *name) { pthread_setname_np((pthread_t)thread, name); }

static void termination_signals(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

// Libraries may start threads before main (OpenBLAS does), and those do not block: without a handler, a signal that
// arrives while nobody waits would be delivered to one of them and end the process.
static pthread_t waiting_thread;
static void forward_termination(int number) { pthread_kill(waiting_thread, number); }

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

void clinux_block_termination(void) {
    sigset_t set;
    termination_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    waiting_thread = pthread_self();
    struct sigaction action = {.sa_handler = forward_termination, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

int clinux_wait_termination(int64_t milliseconds) {
    sigset_t set;
    termination_signals(&set);
    struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    int number = sigtimedwait(&set, NULL, &limit);
    return number < 0 ? -errno : number;
}
