/// A pause that is twice as long each time in a row.
struct Pause {
    /// Nanoseconds of the first one and of the longest.
    let lengths: ClosedRange<UInt64>
    private var length: UInt64 = 0
    /// When it is over.
    private(set) var end: UInt64 = 0
    /// Why there is one; nil when the last attempt went well.
    private(set) var reason: RedisFault?

    init(_ lengths: ClosedRange<UInt64>) { self.lengths = lengths }

    mutating func begin(_ fault: RedisFault, at now: UInt64) {
        length = min(max(lengths.lowerBound, 2 * length), lengths.upperBound)
        // Machines that stopped together should not come back together.
        end = now + length / 2 + .random(in: 0...length / 2)
        reason = fault
    }

    mutating func finish() { self = Pause(lengths) }
}
