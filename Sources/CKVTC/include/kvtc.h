// Keeps the KV-cache pages of an inference engine in kvtcd, and brings them back.
//
//     cc engine.c $(pkg-config --cflags --libs kvtc)
//
// A page is the keys and values of some consecutive tokens, all layers, in the layout that the session declares. A key names it: a
// hash over its tokens and all before them, so that equal beginnings share pages. Whatever else the values depend on is the session's
// identity. What K and V mean for the daemon, and what stays the caller's duty: WireProtocol.md.
//
// No call waits longer than the session's timeout, raises a signal or ends the process. A daemon that is away, stuck or restarted
// costs one timeout, and then nothing until it is asked again after a pause of 1 to 30 seconds: KVTC_UNAVAILABLE at once. Compute
// what does not come.
//
// A session may be used by several threads; calls on it wait for each other. After fork() the child's calls connect anew.
#ifndef KVTC_H
#define KVTC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#pragma clang assume_nonnull begin
#define KVTC_NULLABLE _Nullable
#else
#define KVTC_NULLABLE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// What a call came to; kvtc_error() says it in words.
typedef enum kvtc_status {
    KVTC_OK = 0,
    /// No daemon answers, or not in time. The same call may succeed later.
    KVTC_UNAVAILABLE = 1,
    /// The daemon refused: the message names the field and the limit.
    KVTC_REFUSED = 2,
    /// An argument that no daemon would take; nothing was sent.
    KVTC_INVALID = 3,
} kvtc_status;

/// The sentence about the last call of this thread that was not KVTC_OK, with what to do about it. Valid until the next such call.
const char *kvtc_error(void);

/// "0.1.0"
const char *kvtc_version(void);

/// The name of a page.
typedef struct kvtc_key {
    uint8_t bytes[32];
} kvtc_key;

enum { KVTC_ROLE_KEY = 0, KVTC_ROLE_VALUE = 1, KVTC_ROLE_LATENT = 2 };
/// Which elements of a head RoPE turns together: 2i and 2i + 1, or i and i + half.
enum { KVTC_ROPE_NONE = 0, KVTC_ROPE_INTERLEAVED = 1, KVTC_ROPE_HALF_SPLIT = 2 };
enum { KVTC_F16 = 1, KVTC_BF16 = 2, KVTC_F32 = 3, KVTC_E4M3 = 4, KVTC_E5M2 = 5 };
/// Slowest index first; the elements of a head come last.
enum { KVTC_TENSOR_TOKEN_HEAD = 0, KVTC_TOKEN_TENSOR_HEAD = 1, KVTC_TENSOR_HEAD_TOKEN = 2 };
/// K of all layers, then V; K and V of layer 0, of layer 1, …; or those and K and V of one head side by side.
enum { KVTC_ROLES_APART = 0, KVTC_LAYER_PAIRS = 1, KVTC_FUSED_HEADS = 2 };
/// All but lossless change values; transform and kvtc need a profile.
enum { KVTC_LOSSLESS = 1, KVTC_TRANSFORM = 2, KVTC_KVTC = 3, KVTC_QUANT8 = 4, KVTC_QUANT4 = 5 };
/// What kvtc_policy.quality is: raw bytes over stored bytes, or a bound on the weighted relative squared error.
enum { KVTC_RATIO = 0, KVTC_DISTORTION = 1 };

/// When pages that left the window are coded: when the daemon's configuration says; as soon as possible; when its RAM runs short; as
/// soon as it has nothing else to do.
enum { KVTC_CODE_AS_CONFIGURED = 0, KVTC_CODE_AT_ONCE = 1, KVTC_CODE_UNDER_PRESSURE = 2, KVTC_CODE_IDLE = 3 };

/// One cached tensor of one layer: heads × head_dim elements a token.
typedef struct kvtc_tensor {
    uint16_t layer, heads, head_dim;
    /// The elements of each head that RoPE turns: rotary_dims from rotary_offset on.
    uint16_t rotary_offset, rotary_dims;
    uint8_t role, rotary_style;
} kvtc_tensor;

/// Fills in K and V of every layer alike, 2 × layers of them: RoPE on the whole heads of K in the style given.
void kvtc_fill_tensors(kvtc_tensor *tensors, uint16_t layers, uint16_t heads, uint16_t head_dim, uint8_t rotary_style);

/// How pages are treated; kvtc_options_init() fills in what a session has that says nothing.
typedef struct kvtc_policy {
    /// The first and the last tokens that never become lossy.
    uint32_t sink, window;
    /// Seconds that a page lives after its last use; 0: for ever.
    uint32_t ttl_seconds;
    float quality;
    /// Bounds on the relative squared error, 0 for none: that of any coded page, and that within which the window of an idle session
    /// may be coded.
    float distortion_limit, near;
    uint8_t mode, quality_kind;
    /// 255 stays longest under pressure, 128 is normal.
    uint8_t priority;
    /// Never evicted.
    bool pin;
} kvtc_policy;

/// What a session is opened with. Call kvtc_options_init() first: fields that later versions add keep their meaning then.
typedef struct kvtc_options {
    /// sizeof(kvtc_options), from kvtc_options_init().
    size_t size;
    /// NULL: $KVTC_SOCKET, else /run/kvtcd/kvtcd.sock.
    const char *KVTC_NULLABLE socket;
    /// For the daemon's log and status; NULL: "kvtc-c".
    const char *KVTC_NULLABLE name;
    /// 16 to 64 bytes that name all that K and V depend on besides the tokens: the weights' content, adapters and their scales, the
    /// type of the cache and its scales, the rank. Sessions of other identities never meet these pages. There is no default.
    const uint8_t *KVTC_NULLABLE identity;
    size_t identity_bytes;
    /// The 32 bytes of a profile's id, or NULL: transform coding needs one.
    const uint8_t *KVTC_NULLABLE profile;
    /// In the order of the page's layout. None: those of the profile.
    const kvtc_tensor *KVTC_NULLABLE tensors;
    size_t tensor_count;
    /// Radians a position for each pair of elements that RoPE turns: half as many as the largest rotary_dims.
    const float *KVTC_NULLABLE rope_frequencies;
    size_t rope_frequency_count;
    uint8_t element, order, grouping;
    /// V has its token axis innermost.
    bool value_transposed;
    /// 16 to 1024.
    uint32_t page_tokens;
    kvtc_policy policy;
    /// Shared memory through which pages travel; less is taken where the daemon allows less, and the socket where it allows none.
    size_t arena_bytes;
    /// What one call waits at most, all in all.
    uint32_t timeout_ms;
    /// In what was padding: earlier libraries pass over it.
    uint8_t code;
} kvtc_options;

/// Lossless; 64 tokens a page of f16; sinks of 4 and a window of 128 tokens; 64 MiB of arena; 5 seconds.
void kvtc_options_init(kvtc_options *options);

/// A token stream.
typedef struct kvtc_session kvtc_session;

/// Opens a session. KVTC_UNAVAILABLE gives one, too: it is opened by the first call that finds the daemon. What the options point to
/// is copied.
kvtc_status kvtc_open(const kvtc_options *options, kvtc_session *KVTC_NULLABLE *KVTC_NULLABLE session);

/// Ends the session; its pages stay. NULL is let pass.
void kvtc_close(kvtc_session *KVTC_NULLABLE session);

/// Bytes of one token, all tensors; 0 while that is known to the daemon alone (no tensors, and not opened yet).
size_t kvtc_token_bytes(kvtc_session *session);

/// The keys of all full pages of a token sequence: count / page_tokens of them. `profile` as in the options; `parent`: the key of the
/// page before, NULL at the beginning.
kvtc_status kvtc_page_keys(const int32_t *tokens, size_t count, uint32_t page_tokens, const uint8_t *KVTC_NULLABLE profile,
                           const kvtc_key *KVTC_NULLABLE parent, kvtc_key *keys);

enum { KVTC_ABSENT = 0, KVTC_RAW = 1, KVTC_CODED = 2, KVTC_ON_DISK = 3, KVTC_SHARED = 4 };

/// Which pages are there: `leading_run` counts them from the first one on without a gap, `residence` (count of them, or NULL) says
/// where each is. With `lease_ms` they stay there so long; give `*lease` to kvtc_pull(), and to kvtc_release() when done.
kvtc_status kvtc_lookup(kvtc_session *session, const kvtc_key *keys, size_t count, uint32_t lease_ms, size_t *leading_run,
                        uint64_t *KVTC_NULLABLE lease, uint8_t *KVTC_NULLABLE residence);

/// Ends a lease before its time. One that has ended already is no error.
kvtc_status kvtc_release(kvtc_session *session, uint64_t lease);

/// A page to keep: full, or the sequence's last and shorter.
typedef struct kvtc_page {
    kvtc_key key;
    /// The position of its first token.
    uint32_t first_token;
    uint32_t tokens;
    /// tokens × kvtc_token_bytes() of them.
    const void *KVTC_NULLABLE bytes;
} kvtc_page;

enum { KVTC_STORED = 0, KVTC_PRESENT = 1, KVTC_FULL = 2, KVTC_TOO_LARGE = 3, KVTC_NON_FINITE = 4, KVTC_NOT_SENT = 255 };

/// Hands pages over, in stream order. `outcomes` (count of them, or NULL): what became of each; KVTC_NOT_SENT where the call ended
/// before. The bytes are free again on return.
kvtc_status kvtc_push(kvtc_session *session, const kvtc_page *pages, size_t count, uint8_t *KVTC_NULLABLE outcomes);

/// Takes the layers [layer_begin, layer_end) of the page of keys[index], in the session's layout. `bytes` is valid until it returns.
/// What came may still turn out to be worth nothing: kvtc_pull()'s outcomes decide. It must not call this library.
typedef void (*kvtc_place)(void *KVTC_NULLABLE context, size_t index, uint16_t layer_begin, uint16_t layer_end, const void *bytes,
                           size_t length);

enum { KVTC_HIT = 0, KVTC_MISS = 1, KVTC_CORRUPT = 2, KVTC_NO_SPACE = 3, KVTC_BUSY = 4 };

/// Brings full pages back, in whatever order they come. `layer_step`: layers of one part, so that the first of all pages come first;
/// 0: whole pages. `outcomes` (count of them): KVTC_HIT where all of the page came, KVTC_MISS also for what a failed call left out.
/// `lease`: of kvtc_lookup(), or 0.
kvtc_status kvtc_pull(kvtc_session *session, const kvtc_key *keys, size_t count, uint64_t lease, uint16_t layer_step, kvtc_place place,
                      void *KVTC_NULLABLE context, uint8_t *outcomes);

/// Brings pages from disk to RAM, in the background.
kvtc_status kvtc_prefetch(kvtc_session *session, const kvtc_key *keys, size_t count);

/// The stream goes on from that many tokens: what was behind leaves the session, and stays in the store.
kvtc_status kvtc_truncate(kvtc_session *session, uint32_t tokens);

/// Changes the policy from here on, also for connections to come.
kvtc_status kvtc_set_policy(kvtc_session *session, const kvtc_policy *policy);

/// Returns when everything that was pushed through the session survives a power loss.
kvtc_status kvtc_flush(kvtc_session *session);

/// Forgets pages, used by other sessions or not.
kvtc_status kvtc_drop(kvtc_session *session, const kvtc_key *keys, size_t count);

#ifdef __cplusplus
}
#endif

#if defined(__clang__)
#pragma clang assume_nonnull end
#endif

#endif
