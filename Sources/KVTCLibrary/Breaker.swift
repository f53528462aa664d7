import KVTCSystem

/// Remembers that the daemon did not answer, so that not every call waits for it anew. After a failure nothing is asked for a second;
/// every further one doubles the pause, up to half a minute.
struct Breaker {
    private static let (first, longest): (UInt64, UInt64) = (1_000_000_000, 30_000_000_000)
    private var pause: UInt64 = 0
    private var until: UInt64 = 0

    func enter(at now: UInt64) throws(Failure) {
        if pause > 0, now < until { throw .paused(seconds: Double(until - now) / 1e9) }
    }

    mutating func succeed() { pause = 0 }

    mutating func fail(at now: UInt64) {
        pause = pause == 0 ? Self.first : min(2 * pause, Self.longest)
        until = now + pause
    }
}
