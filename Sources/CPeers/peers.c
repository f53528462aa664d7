#define _GNU_SOURCE
#include "CPeers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int peer_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int send_all(int fd, struct iovec *parts, int count) {
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        while (count > 0 && (size_t)sent >= parts->iov_len) {
            sent -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (uint8_t *)parts->iov_base + sent;
            parts->iov_len -= (size_t)sent;
        }
    }
    return 0;
}

static int receive_all(int fd, void *target, size_t length) {
    uint8_t *at = target;
    while (length > 0) {
        ssize_t got = recv(fd, at, length, MSG_WAITALL);
        if (got == 0) return -ECONNRESET;
        if (got < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        at += got;
        length -= (size_t)got;
    }
    return 0;
}

int peer_serve_transfers(int fd, const uint8_t *source, size_t capacity) {
    while (1) {
        uint64_t length;
        int result = receive_all(fd, &length, sizeof length);
        if (result == -ECONNRESET) return 0;
        if (result != 0) return result;
        if (length > capacity) return -EINVAL;
        struct iovec part = {.iov_base = (void *)source, .iov_len = length};
        if ((result = send_all(fd, &part, 1)) != 0) return result;
    }
}

int peer_transfer(int fd, uint8_t *target, size_t length) {
    uint64_t wish = length;
    struct iovec part = {.iov_base = &wish, .iov_len = sizeof wish};
    int result = send_all(fd, &part, 1);
    return result != 0 ? result : receive_all(fd, target, length);
}

enum { key_bytes = 32 };
#define TEXT(literal) {(void *)literal, sizeof literal - 1}

static int expect(int fd, const char *answer, size_t length) {
    char got[64];
    int result = receive_all(fd, got, length);
    return result != 0 ? result : memcmp(got, answer, length) == 0 ? 0 : -EPROTO;
}

int peer_redis_set(int fd, const uint8_t *keys, size_t count, const uint8_t *values, size_t length) {
    char tail[64];
    int tail_bytes = snprintf(tail, sizeof tail, "\r\n$%zu\r\n", length);
    for (size_t i = 0; i < count; i++) {
        struct iovec parts[] = {
            TEXT("*3\r\n$3\r\nSET\r\n$32\r\n"),
            {(void *)(keys + i * key_bytes), key_bytes},
            {tail, (size_t)tail_bytes},
            {(void *)(values + i * length), length},
            TEXT("\r\n"),
        };
        int result = send_all(fd, parts, 5);
        if (result != 0) return result;
    }
    for (size_t i = 0; i < count; i++) {
        int result = expect(fd, "+OK\r\n", 5);
        if (result != 0) return result;
    }
    return 0;
}

int peer_redis_get(int fd, const uint8_t *keys, size_t count, uint8_t *values, size_t length) {
    for (size_t i = 0; i < count; i++) {
        struct iovec parts[] = {
            TEXT("*2\r\n$3\r\nGET\r\n$32\r\n"),
            {(void *)(keys + i * key_bytes), key_bytes},
            TEXT("\r\n"),
        };
        int result = send_all(fd, parts, 3);
        if (result != 0) return result;
    }
    char head[64];
    int head_bytes = snprintf(head, sizeof head, "$%zu\r\n", length);
    for (size_t i = 0; i < count; i++) {
        int result = expect(fd, head, (size_t)head_bytes);
        if (result == 0) result = receive_all(fd, values + i * length, length);
        if (result == 0) result = expect(fd, "\r\n", 2);
        if (result != 0) return result;
    }
    return 0;
}

int peer_redis_flush(int fd) {
    struct iovec part = TEXT("*1\r\n$8\r\nFLUSHALL\r\n");
    int result = send_all(fd, &part, 1);
    return result != 0 ? result : expect(fd, "+OK\r\n", 5);
}

int peer_open(const char *path, int direct) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    return fd < 0 ? -errno : fd;
}
