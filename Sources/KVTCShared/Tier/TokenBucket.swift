/// How much may be written now, of so many bytes a second on average. A page larger than a second's share is written when there is
/// anything left, and paid for afterwards.
struct TokenBucket {
    private let bytesPerSecond: Double
    private var balance: Double
    private var last: UInt64

    /// Full, with the share of one second.
    init(bytesPerSecond: UInt64, now: UInt64) {
        self.bytesPerSecond = Double(max(1, bytesPerSecond))
        (balance, last) = (self.bytesPerSecond, now)
    }

    /// Takes so many bytes; false when that can't be yet, see ``delay(at:)``.
    mutating func take(_ bytes: Int, at now: UInt64) -> Bool {
        refill(now)
        guard balance > 0 else { return false }
        balance -= Double(bytes)
        return true
    }

    /// Nanoseconds until something can be taken.
    mutating func delay(at now: UInt64) -> UInt64 {
        refill(now)
        return balance > 0 ? 0 : UInt64(-balance / bytesPerSecond * 1e9) + 1
    }

    private mutating func refill(_ now: UInt64) {
        guard now > last else { return }
        balance = min(bytesPerSecond, balance + Double(now - last) / 1e9 * bytesPerSecond)
        last = now
    }
}
