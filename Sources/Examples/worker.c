// The least that a worker does, over the socket alone: WireProtocol.md says what every byte means.
//
//     cc -Wall -Wextra -Werror -o worker worker.c -lcrypto && ./worker /run/kvtcd/kvtcd.sock
//
// It pushes two pages of a cache, asks for them by their keys, pulls them back and compares. Payloads travel inside the
// frames here; an engine that moves gigabytes asks for an ARENA and shares its memory with the daemon.
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO = 1, OPEN_SESSION = 3, LOOKUP = 5, PUSH = 6, PULL = 7 };
enum { HEADER = 24, KEY = 32, REPLY = 0x8000, FEATURE_IDENTITY = 1 << 2 };
static const uint32_t MAGIC = 0x3154564B, MORE = 0x80000000, NONE = 0xFFFFFFFF, NO_TABLE = 0xFFFF;

// The model: two layers with one head of 8 values each for K and V, kept as f16.
enum { LAYERS = 2, HEAD_DIM = 8, PAGE_TOKENS = 16, PAGES = 2, ELEMENTS = LAYERS * 2 * HEAD_DIM * PAGE_TOKENS };
enum { PAGE_BYTES = 2 * ELEMENTS };
// Names all that K and V depend on besides the tokens: see "Duties of the caller".
static const char IDENTITY[] = "digest of the weights, adapters and scales";

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

// A body that is written from its beginning, or read.
struct body {
    uint8_t bytes[1 << 16];
    uint32_t count, position;
};

static void put_bytes(struct body *body, const void *bytes, uint32_t count) {
    if (count > sizeof body->bytes - body->count) fail("the request is too long for this example");
    memcpy(body->bytes + body->count, bytes, count);
    body->count += count;
}

// Numbers are little-endian, whatever the machine is.
static void put(struct body *body, uint64_t value, int size) {
    uint8_t bytes[8];
    for (int i = 0; i < size; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    put_bytes(body, bytes, (uint32_t)size);
}

static void put_text(struct body *body, const char *text) {
    put(body, strlen(text), 4);
    put_bytes(body, text, (uint32_t)strlen(text));
}

static const uint8_t *take_bytes(struct body *body, uint32_t count) {
    if (count > body->count - body->position) fail("the reply is shorter than it says");
    body->position += count;
    return body->bytes + body->position - count;
}

static uint64_t take(struct body *body, int size) {
    const uint8_t *bytes = take_bytes(body, (uint32_t)size);
    uint64_t value = 0;
    for (int i = 0; i < size; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static void write_all(int file, const uint8_t *bytes, size_t count) {
    while (count > 0) {
        // A daemon that is gone is an error here and no signal.
        ssize_t written = send(file, bytes, count, MSG_NOSIGNAL);
        if (written <= 0) fail("the daemon is gone");
        bytes += written;
        count -= (size_t)written;
    }
}

static void read_all(int file, uint8_t *bytes, size_t count) {
    while (count > 0) {
        ssize_t got = read(file, bytes, count);
        if (got <= 0) fail("the daemon is gone");
        bytes += got;
        count -= (size_t)got;
    }
}

static uint64_t last_id;

static void request(int file, unsigned opcode, const struct body *body) {
    struct body header = {.count = 0};
    put(&header, MAGIC, 4), put(&header, 1, 2), put(&header, opcode, 2), put(&header, ++last_id, 8);
    put(&header, 0, 4), put(&header, body->count, 4);
    write_all(file, header.bytes, HEADER);
    write_all(file, body->bytes, body->count);
}

// Reads one part of the reply to the last request; 1 when further parts follow.
static int reply(int file, unsigned opcode, struct body *body) {
    struct body header = {.count = HEADER};
    read_all(file, header.bytes, HEADER);
    if (take(&header, 4) != MAGIC || take(&header, 2) != 1) fail("this is no kvtcd");
    unsigned answered = (unsigned)take(&header, 2);
    uint64_t id = take(&header, 8);
    uint32_t status = (uint32_t)take(&header, 4);
    *body = (struct body){.count = (uint32_t)take(&header, 4)};
    if (body->count > sizeof body->bytes) fail("the reply is too long for this example");
    read_all(file, body->bytes, body->count);
    if (status & ~MORE) {
        uint32_t field_count = (uint32_t)take(body, 4);
        const char *field = (const char *)take_bytes(body, field_count);
        uint32_t count = (uint32_t)take(body, 4);
        const char *message = (const char *)take_bytes(body, count);
        fail("refused (error %u): %.*s: %.*s", status, (int)field_count, field, (int)count, message);
    }
    if (answered != (opcode | REPLY) || id != last_id) fail("a reply to another request");
    return (status & MORE) != 0;
}

static void call(int file, unsigned opcode, struct body *body) {
    request(file, opcode, body);
    if (reply(file, opcode, body)) fail("a reply in parts");
}

static int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) fail("%s is too long for a socket's path", path);
    strcpy(address.sun_path, path);
    int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0 || connect(file, (struct sockaddr *)&address, sizeof address) != 0) fail("nobody listens at %s", path);
    return file;
}

static void hello(int file) {
    struct body body = {.count = 0};
    put(&body, 1, 2), put(&body, 1, 2), put(&body, FEATURE_IDENTITY, 4), put_text(&body, "example in C");
    call(file, HELLO, &body);
    if (take(&body, 2) != 1 || !(take(&body, 4) & FEATURE_IDENTITY)) fail("this kvtcd knows no identities: upgrade it");
}

static uint32_t open_session(int file) {
    struct body body = {.count = 0};
    put_text(&body, "example");
    put(&body, 0, 4); // No profile: lossless.
    put(&body, 2 * LAYERS, 4);
    for (unsigned layer = 0; layer < LAYERS; layer++)
        for (unsigned role = 0; role < 2; role++) {
            put(&body, layer, 2), put(&body, role, 1), put(&body, 0, 1), put(&body, 1, 2), put(&body, HEAD_DIM, 2);
            put(&body, 0, 4), put(&body, NO_TABLE, 2);
        }
    put(&body, 0, 4); // No tables of frequencies: RoPE matters to a profile alone.
    put(&body, 1, 4); // Layout: f16; tensor, token, head; K of all layers, then V; V not transposed.
    put(&body, PAGE_TOKENS, 4);
    // Policy: sink, window; lossless, ratio, priority, flags; quality 1.0, no end, no ranges.
    put(&body, 4, 4), put(&body, 128, 4);
    put(&body, 1, 1), put(&body, 0, 1), put(&body, 128, 1), put(&body, 0, 1);
    put(&body, 0x3F800000, 4), put(&body, 0, 4), put(&body, 0, 4);
    put_text(&body, IDENTITY);
    call(file, OPEN_SESSION, &body);
    return (uint32_t)take(&body, 4);
}

// A page's key hashes its tokens and the key of the page before: it names the page with everything that led to it.
static void page_key(const uint8_t before[KEY], const int32_t *tokens, uint8_t key[KEY]) {
    struct body body = {.count = 0};
    const uint8_t no_profile[KEY] = {0};
    put_bytes(&body, "kvtc-page-v1", 12), put_bytes(&body, no_profile, KEY), put_bytes(&body, before, KEY);
    put(&body, PAGE_TOKENS, 4);
    for (int i = 0; i < PAGE_TOKENS; i++) put(&body, (uint32_t)tokens[i], 4);
    SHA256(body.bytes, body.count, key);
}

static void push(int file, uint32_t session, uint8_t keys[][KEY], uint8_t pages[][PAGE_BYTES]) {
    struct body body = {.count = 0};
    put(&body, session, 4), put(&body, NONE, 4), put(&body, PAGES, 4);
    for (unsigned page = 0; page < PAGES; page++) {
        put_bytes(&body, keys[page], KEY), put(&body, page * PAGE_TOKENS, 4), put(&body, PAGE_TOKENS, 4);
        put(&body, page * PAGE_BYTES, 8), put(&body, PAGE_BYTES, 8);
    }
    put(&body, PAGES * PAGE_BYTES, 4);
    for (unsigned page = 0; page < PAGES; page++) put_bytes(&body, pages[page], PAGE_BYTES);
    call(file, PUSH, &body);
    if (take(&body, 4) != PAGES) fail("not an outcome for every page");
    for (unsigned page = 0; page < PAGES; page++) {
        uint64_t outcome = take(&body, 1);
        // 0: stored, 1: it is there already.
        if (outcome > 1) fail("page %u was not stored: outcome %u", page, (unsigned)outcome);
    }
}

// How many of the pages can be had, counted from the first.
static uint32_t lookup(int file, uint32_t session, uint8_t keys[][KEY]) {
    struct body body = {.count = 0};
    put(&body, session, 4), put(&body, 0, 4), put(&body, PAGES, 4);
    for (unsigned page = 0; page < PAGES; page++) put_bytes(&body, keys[page], KEY);
    call(file, LOOKUP, &body);
    take(&body, 8);
    return (uint32_t)take(&body, 4);
}

// Gives how many pages came; a page that is not to be had is computed anew.
static uint32_t pull(int file, uint32_t session, uint8_t keys[][KEY], uint8_t pages[][PAGE_BYTES]) {
    struct body body = {.count = 0};
    put(&body, session, 4), put(&body, 0, 8), put(&body, NONE, 4), put(&body, 0, 6), put(&body, PAGES, 4);
    for (unsigned page = 0; page < PAGES; page++)
        put_bytes(&body, keys[page], KEY), put(&body, 0, 8), put(&body, PAGE_BYTES, 8);
    request(file, PULL, &body);
    while (reply(file, PULL, &body)) {
        uint64_t entry = take(&body, 4);
        take(&body, 4);
        uint64_t outcome = take(&body, 1), offset = take(&body, 8), length = take(&body, 8);
        uint32_t count = (uint32_t)take(&body, 4);
        if (outcome != 0) continue;
        if (entry >= PAGES || offset > PAGE_BYTES || length > PAGE_BYTES - offset || length != count)
            fail("a part of no page that was asked for");
        memcpy(pages[entry] + offset, take_bytes(&body, count), count);
    }
    return (uint32_t)take(&body, 4);
}

int main(int count, char **arguments) {
    if (count != 2) fail("usage: worker SOCKET");
    uint8_t keys[PAGES][KEY], pages[PAGES][PAGE_BYTES], back[PAGES][PAGE_BYTES] = {{0}}, before[KEY] = {0};
    for (int page = 0; page < PAGES; page++) {
        int32_t tokens[PAGE_TOKENS];
        for (int i = 0; i < PAGE_TOKENS; i++) tokens[i] = page * PAGE_TOKENS + i;
        page_key(before, tokens, keys[page]);
        memcpy(before, keys[page], KEY);
        // Numbers between 1 and 2, as f16: what an engine would have computed.
        for (int i = 0; i < ELEMENTS; i++) {
            pages[page][2 * i] = (uint8_t)(i + page);
            pages[page][2 * i + 1] = 0x3C;
        }
    }
    int file = dial(arguments[1]);
    hello(file);
    uint32_t session = open_session(file);
    push(file, session, keys, pages);
    if (lookup(file, session, keys) != PAGES) fail("the pages are not there");
    if (pull(file, session, keys, back) != PAGES) fail("the pages did not come");
    if (memcmp(pages, back, sizeof pages) != 0) fail("other bytes came back");
    close(file); // The session ends with its connection, the pages stay.
    printf("%d pages of %d bytes came back as they were\n", PAGES, PAGE_BYTES);
}
