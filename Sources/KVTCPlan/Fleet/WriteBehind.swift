/// What a machine writes to the shared tier behind its requests, over its own link, which carries as much out as in.
struct WriteBehind {
    /// Seconds after which a block that waits is left out: a link that is full for longer does not catch up.
    static let patience = 10.0

    /// Bytes a second.
    let rate: Double
    /// Seconds, when all that waits is written.
    private var idle = 0.0

    init(rate: Double) { self.rate = rate }

    /// When a block has been written that begins to wait at a time, not before those that came earlier; nil if it is held back.
    mutating func write(_ bytes: Int, at time: Double) -> Double? {
        let begin = max(idle, time)
        guard begin - time <= Self.patience else { return nil }
        idle = begin + Double(bytes) / rate
        return idle
    }
}
