import Glibc

/// State behind a lock, with a way to wait until it changes.
public final class Monitor<State>: @unchecked Sendable {
    // Justified: the pthread objects are used by address only, and `state` only while the mutex is held.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let rank: LockRank?
    private var state: State

    /// State that only its lock gives access to.
    /// - Parameter rank: its place in the order of locks; nil for a lock under which no other is taken.
    public init(_ state: sending State, rank: LockRank? = nil) {
        self.state = state
        self.rank = rank
        pthread_mutex_init(mutex, nil)
        // Deadlines must not move with the wall clock.
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    private func lock() {
        assert(rank?.enter() ?? true, "a lock is taken out of order")
        pthread_mutex_lock(mutex)
    }

    private func unlock() {
        pthread_mutex_unlock(mutex)
        assert(rank?.leave() ?? true, "a lock is given back that is not held")
    }

    /// Works on the state alone.
    public func withLock<R, E: Error>(_ body: (inout State) throws(E) -> R) throws(E) -> R {
        lock()
        defer { unlock() }
        return try body(&state)
    }

    /// Works on the state alone and then wakes everybody who waits for a change.
    public func update<R, E: Error>(_ body: (inout State) throws(E) -> R) throws(E) -> R {
        lock()
        defer {
            pthread_cond_broadcast(condition)
            unlock()
        }
        return try body(&state)
    }

    /// Waits until the state is ready, works on it and wakes everybody who waits for a change.
    public func update<R>(when isReady: (State) -> Bool, _ body: (inout State) -> R) -> R {
        lock()
        defer {
            pthread_cond_broadcast(condition)
            unlock()
        }
        while !isReady(state) { pthread_cond_wait(condition, mutex) }
        return body(&state)
    }

    /// Waits until `body` gives a value, which it is asked for now and after every change. Nil when the deadline (on
    /// ``MonotonicClock``; nil for none) passes first.
    public func wait<R>(until deadline: UInt64? = nil, _ body: (inout State) -> R?) -> R? {
        lock()
        defer { unlock() }
        while true {
            if let result = body(&state) { return result }
            guard let deadline else {
                pthread_cond_wait(condition, mutex)
                continue
            }
            if MonotonicClock.nanoseconds >= deadline { return nil }
            var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
            pthread_cond_timedwait(condition, mutex, &time)
        }
    }
}
