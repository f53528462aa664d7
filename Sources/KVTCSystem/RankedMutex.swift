import Synchronization

/// A `Mutex` with a place in the order of locks.
public struct RankedMutex<Value: ~Copyable>: ~Copyable {
    @usableFromInline let rank: LockRank
    @usableFromInline let mutex: Mutex<Value>

    /// A value that nothing else has access to.
    public init(_ value: consuming sending Value, rank: LockRank) {
        self.rank = rank
        mutex = Mutex(value)
    }

    /// Works on the value alone.
    @inlinable public borrowing func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        assert(rank.enter(), "a lock is taken out of order")
        defer { assert(rank.leave(), "a lock is given back that is not held") }
        return try mutex.withLock(body)
    }
}

extension RankedMutex: Sendable where Value: ~Copyable {}
