import KVTCSystem

/// Keeps a server that fails from costing its askers time: after ``threshold`` faults in a row, or one that leaves no doubt, it is open,
/// and nothing is sent but a probe at growing intervals. A probe that succeeds makes it half open: the next answer in time closes it, and
/// the next fault opens it again, for longer. (Nygard, Release It!, "Circuit Breaker")
struct Breaker {
    static let threshold = 3
    /// Nanoseconds between probes: the first, and the most.
    static let firstPause: UInt64 = 250_000_000
    static let longestPause: UInt64 = 30_000_000_000

    enum State: String, Sendable {
        case closed, open
        case halfOpen = "half-open"
    }

    private(set) var state = State.closed
    /// When that began.
    private(set) var since: UInt64
    /// When the next probe is due; nil while none is.
    private(set) var nextProbe: UInt64?
    private var counts = [Int](repeating: 0, count: RedisLane.allCases.count)
    private var countedAt: UInt64 = 0
    /// Whose faults opened it; nil where no connection could be had.
    private var culprit: RedisLane?
    private var pause = Breaker.firstPause

    init(now: UInt64) { since = now }

    private static func counts(_ fault: RedisFault) -> Bool {
        switch fault {
        case .timeout, .unreachable, .loading, .denied, .tls, .malformed: true
        case .open, .down, .full, .oversize, .refused, .busy: false
        }
    }

    /// A command of a lane, waiting since some time, came to nothing. True when that opened the breaker.
    mutating func failed(_ fault: RedisFault, _ lane: RedisLane, waitingSince: UInt64, now: UInt64) -> Bool {
        // What was under way already when the last one failed says nothing that is not known.
        guard Breaker.counts(fault), state != .open, waitingSince >= countedAt else { return false }
        countedAt = now
        counts[lane.rawValue] += 1
        guard state == .halfOpen || counts[lane.rawValue] >= Breaker.threshold else { return false }
        open(lane, now)
        return true
    }

    /// No connection could be had. True when that opened the breaker.
    mutating func couldNotConnect(now: UInt64) -> Bool {
        guard state != .open else { return false }
        open(nil, now)
        return true
    }

    /// An answer came in time. True when that closed the breaker.
    mutating func succeeded(_ lane: RedisLane, now: UInt64) -> Bool {
        counts[lane.rawValue] = 0
        // What is quick in one lane does not show that another is well again.
        guard state == .halfOpen, culprit == nil || culprit == lane else { return false }
        (state, since, pause) = (.closed, now, Breaker.firstPause)
        return true
    }

    /// Takes the probe that is due; false when none is.
    mutating func takeProbe(now: UInt64) -> Bool {
        guard let due = nextProbe, due <= now else { return false }
        nextProbe = nil
        return true
    }

    /// A connection was made. It may only have taken longer than commands could wait, which a probe shows at once.
    mutating func connected(now: UInt64) { if nextProbe != nil { nextProbe = now } }

    /// What came of the probe.
    mutating func probed(succeeded: Bool, now: UInt64) {
        guard state == .open else { return }
        if succeeded {
            (state, since) = (.halfOpen, now)
        } else {
            nextProbe = now + nextPause()
        }
    }

    private mutating func open(_ lane: RedisLane?, _ now: UInt64) {
        (state, since, culprit) = (.open, now, lane)
        counts = counts.map { _ in 0 }
        nextProbe = now + nextPause()
    }

    // Spread, so that the machines of a fleet don't come together.
    private mutating func nextPause() -> UInt64 {
        defer { pause = min(pause * 2, Breaker.longestPause) }
        return pause / 4 * 3 + UInt64.random(in: 0...pause / 2)
    }
}
