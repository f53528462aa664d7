import KVTCSessions
import KVTCSystem
import Synchronization

/// Counts durations in eight buckets an octave, so that percentiles are right within 7 %: log-linear buckets, as HdrHistogram (Tene)
/// has them. Recording is O(1), a percentile O(buckets), 4 KB in all.
package struct LatencyHistogram: Sendable {
    private static let perOctave = 8
    private var buckets = [UInt64](repeating: 0, count: 64 * LatencyHistogram.perOctave)
    package private(set) var count: UInt64 = 0
    /// Nanoseconds of all durations.
    package private(set) var sum: UInt64 = 0

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
        sum &+= nanoseconds
    }

    package mutating func add(_ other: LatencyHistogram) {
        for index in buckets.indices { buckets[index] += other.buckets[index] }
        count += other.count
        sum &+= other.sum
    }

    /// How many durations were shorter than 2^exponent nanoseconds, for each exponent from 3 on.
    package func below(_ exponents: ClosedRange<Int>) -> [UInt64] {
        exponents.map { buckets[..<LatencyHistogram.bucket(1 << UInt64($0))].reduce(0, +) }
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

/// What the daemon counts itself, for each tenant; the store counts the rest.
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
        /// Faults of the daemon; what clients did wrong is among the refusals.
        var errors: UInt64 = 0
        var refusals = Refusals()
        var droppedByRequest: UInt64 = 0
        /// Near-lossless codings that gave way to the same page pushed anew.
        var renewed: UInt64 = 0
        var driftAlarms: UInt64 = 0
        var coding = CodingTally()

        static func += (sum: inout Counters, more: Counters) {
            sum.rawBytesIn += more.rawBytesIn
            sum.bytesReturned += more.bytesReturned
            sum.pushed += more.pushed
            sum.present += more.present
            sum.hits += more.hits
            sum.misses += more.misses
            sum.corrupt += more.corrupt
            sum.encoded += more.encoded
            sum.nonFinite += more.nonFinite
            sum.errors += more.errors
            sum.refusals += more.refusals
            sum.droppedByRequest += more.droppedByRequest
            sum.renewed += more.renewed
            sum.driftAlarms += more.driftAlarms
            sum.coding += more.coding
        }
    }

    /// One tenant's part, or the sum of several.
    struct Part: Sendable {
        var counters = Counters()
        /// Of the shapes that were pulled last.
        fileprivate(set) var costs: [PullCosts.Shape: PullCosts] = [:]
        fileprivate var latencies = Operation.allCases.map { _ in LatencyHistogram() }

        func latency(_ operation: Operation) -> LatencyHistogram { latencies[operation.rawValue] }

        fileprivate mutating func add(_ other: Part) {
            counters += other.counters
            for index in latencies.indices { latencies[index].add(other.latencies[index]) }
        }
    }

    private let parts = Mutex<[UInt32: Part]>([:])

    func count(_ tenant: UInt32, _ body: (inout Counters) -> Void) {
        parts.withLock { body(&$0[tenant, default: Part()].counters) }
    }

    func record(_ operation: Operation, _ tenant: UInt32, since start: UInt64) {
        record(operation, tenant, MonotonicClock.nanoseconds - start)
    }

    func record(_ operation: Operation, _ tenant: UInt32, _ nanoseconds: UInt64) {
        parts.withLock { $0[tenant, default: Part()].latencies[operation.rawValue].record(nanoseconds) }
    }

    /// Shapes of one tenant whose costs are kept; beyond them all are measured anew.
    private static let shapes = 64

    func record(_ effort: PullEffort, of shape: PullCosts.Shape, _ tenant: UInt32, since start: UInt64) {
        guard effort.allTokens >= PullCosts.fewestTokens else { return }
        let elapsed = MonotonicClock.nanoseconds - start
        parts.withLock { parts in
            let isFull = parts[tenant]?.costs.count == Self.shapes && parts[tenant]?.costs[shape] == nil
            if isFull { parts[tenant]?.costs = [:] }
            parts[tenant, default: Part()].costs[shape, default: PullCosts()].add(effort, elapsed: elapsed)
        }
    }

    /// The costs of a tenant's shapes; nil for everybody's.
    func costs(of tenant: UInt32?) -> [(tenant: UInt32, shape: PullCosts.Shape, costs: PullCosts)] {
        parts.withLock { parts in
            parts.filter { tenant == nil || $0.key == tenant }.flatMap { tenant, part in
                part.costs.map { (tenant, $0.key, $0.value) }
            }
        }
    }

    /// A tenant's part; nil for everybody's together.
    func part(of tenant: UInt32?) -> Part {
        parts.withLock { parts in
            if let tenant { return parts[tenant] ?? Part() }
            return parts.values.reduce(into: Part()) { $0.add($1) }
        }
    }
}
