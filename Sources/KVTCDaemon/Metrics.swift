import KVTCSystem
import Synchronization

/// Counts durations in eight buckets an octave, so that percentiles are right within 7 %.
package struct LatencyHistogram: Sendable {
    private static let perOctave = 8
    private var buckets = [UInt64](repeating: 0, count: 64 * LatencyHistogram.perOctave)
    package private(set) var count: UInt64 = 0

    package init() {}

    private static func bucket(_ nanoseconds: UInt64) -> Int {
        guard nanoseconds >= 8 else { return Int(nanoseconds) }
        let exponent = 63 - nanoseconds.leadingZeroBitCount
        let fraction = Int(truncatingIfNeeded: nanoseconds >> UInt64(exponent - 3)) & 7
        return (exponent - 2) * perOctave + fraction
    }

    /// The middle of a bucket.
    private static func value(_ bucket: Int) -> Double {
        guard bucket >= 8 else { return Double(bucket) }
        let exponent = bucket / perOctave + 2
        return (8.5 + Double(bucket % perOctave)) * Double(UInt64(1) << UInt64(exponent - 3))
    }

    package mutating func record(_ nanoseconds: UInt64) {
        buckets[LatencyHistogram.bucket(nanoseconds)] += 1
        count += 1
    }

    /// Microseconds that the given share of all durations does not exceed; 0 without any.
    package func percentile(_ share: Double) -> Double {
        guard count > 0 else { return 0 }
        let rank = max(1, UInt64((share * Double(count)).rounded(.up)))
        var seen: UInt64 = 0
        for (index, number) in buckets.enumerated() {
            seen += number
            if seen >= rank { return LatencyHistogram.value(index) / 1000 }
        }
        return 0
    }
}

/// What the daemon counts itself; the store counts the rest.
final class Metrics: Sendable {
    enum Operation: Int, CaseIterable { case push, pull, encode, decode }

    struct Counters: Sendable {
        var rawBytesIn: UInt64 = 0
        var bytesReturned: UInt64 = 0
        var pushed: UInt64 = 0
        var present: UInt64 = 0
        var hits: UInt64 = 0
        var misses: UInt64 = 0
        var corrupt: UInt64 = 0
        var encoded: UInt64 = 0
        var nonFinite: UInt64 = 0
        var errors: UInt64 = 0
    }

    private struct State {
        var counters = Counters()
        var latencies = Operation.allCases.map { _ in LatencyHistogram() }
    }

    private let state = Mutex(State())

    func count(_ body: (inout Counters) -> Void) { state.withLock { body(&$0.counters) } }

    func record(_ operation: Operation, since start: UInt64) {
        let elapsed = MonotonicClock.nanoseconds - start
        state.withLock { $0.latencies[operation.rawValue].record(elapsed) }
    }

    var counters: Counters { state.withLock { $0.counters } }

    func latency(_ operation: Operation) -> LatencyHistogram { state.withLock { $0.latencies[operation.rawValue] } }
}
