import KVTCSystem
import Synchronization

/// What all that this machine writes has to share.
final class WriteBudget: Sendable {
    private let bucket: Mutex<TokenBucket?>

    /// - Parameter bytesPerSecond: nil for no limit.
    init(bytesPerSecond: UInt64?) {
        bucket = Mutex(bytesPerSecond.map { TokenBucket(bytesPerSecond: $0, now: MonotonicClock.nanoseconds) })
    }

    /// Takes so many bytes as soon as it may. False when `isOver`, which waits until the moment that it is given, says so first.
    func wait(_ bytes: Int, _ isOver: (UInt64) -> Bool) -> Bool {
        while true {
            let end = bucket.withLock { bucket -> UInt64? in
                let now = MonotonicClock.nanoseconds
                guard bucket?.take(bytes, at: now) == false else { return nil }
                return now + bucket!.delay(at: now)
            }
            guard let end else { return true }
            if isOver(end) { return false }
        }
    }
}
