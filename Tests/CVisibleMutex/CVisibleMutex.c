// Lets ThreadSanitizer see what Synchronization's Mutex orders.
//
// An uncontended Mutex is an atomic exchange in instrumented code: its own thread's id for zero. A contended one is handed
// over by the kernel (FUTEX_LOCK_PI) in library code that the sanitizer knows nothing of, and everything the lock guards looks
// like a race. This replaces that half at link time: a thread that finds the lock taken tries the exchange until it works.
#include "CVisibleMutex.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

// Synchronization._MutexHandle._lockSlow(_: UInt32) -> (); the handle is the futex word. Unlocking has no slow half then, as
// nobody marks the word as waited for.
__attribute__((swiftcall)) void lock_slow(uint32_t thread, __attribute__((swift_context)) _Atomic uint32_t *word)
    __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");

__attribute__((swiftcall)) void lock_slow(uint32_t thread, __attribute__((swift_context)) _Atomic uint32_t *word) {
    uint32_t nobody = 0;
    while (!atomic_compare_exchange_weak_explicit(word, &nobody, thread, memory_order_acquire, memory_order_relaxed)) {
        nobody = 0;
        sched_yield();
    }
}
#endif
#endif
