#ifndef KVTC_CLONES_H
#define KVTC_CLONES_H

// Loops that compilers vectorise well, built for AVX2 too and chosen when the program is loaded. Without contraction and
// reassociation every build gives the same bits. Not under ThreadSanitizer: what it puts into the choosing function runs before
// it is set up, and crashes.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KV_THREAD_SANITIZER
#endif
#endif
#if defined(__x86_64__) && defined(__linux__) && !defined(KV_THREAD_SANITIZER)
#define KV_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define KV_CLONES
#endif

#endif
