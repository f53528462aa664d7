import KVTCSessions
import KVTCSystem
import Synchronization

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
