import KVTCSystem

/// What the shared tier has done since the start.
package struct SharedStatistics: Sendable {
    /// Pages that were offered and not written.
    package struct HeldBack: Sendable {
        /// Since the queue was full while the budget was spent.
        package var budget: UInt64 = 0
        /// Since it was full otherwise.
        package var queue: UInt64 = 0
        /// Since the servers did not take them.
        package var fault: UInt64 = 0

        package init() {}
    }

    /// Lookups of pages: those sent, those found, those not there, and those known not to be there and not sent.
    package var asked: UInt64 = 0, hits: UInt64 = 0, absent: UInt64 = 0, knownAbsent: UInt64 = 0
    /// Pages brought here, bytes of their blocks, and those that were not there any more.
    package var fetchedPages: UInt64 = 0, fetchedBytes: UInt64 = 0, fetchedAbsent: UInt64 = 0
    /// Pages written, bytes of their values, and those that were there already.
    package var writtenPages: UInt64 = 0, writtenBytes: UInt64 = 0, known: UInt64 = 0
    package var heldBack = HeldBack()
    /// Removals done, and those that were forgotten since too many waited.
    package var removed: UInt64 = 0, removalsLost: UInt64 = 0
    /// Profiles taken from others, and parts of profiles written for them.
    package var profilesTaken: UInt64 = 0, profilePartsWritten: UInt64 = 0
    /// Answers that were none, by reason: every ``RedisFault``, `corrupt`, `truncated` and `newer`.
    package var faults = [String: UInt64](
        uniqueKeysWithValues: (RedisFault.allCases.map(\.rawValue) + SharedValue.Fault.allCases.map(\.rawValue)).map {
            ($0, 0)
        })
    /// How long lookups of many pages took, and bringing one page.
    package var asks = LatencyHistogram(), fetches = LatencyHistogram()
    /// Pages and removals that wait now, and whether writing pauses since the servers have no memory or are away.
    package var waiting = 0, waitingRemovals = 0
    package var pausedFor: RedisFault?
    /// The servers that were asked.
    package var servers: [NodeStatus] = []

    package init() {}

    mutating func count(_ fault: RedisFault, _ times: Int = 1) { faults[fault.rawValue, default: 0] += UInt64(times) }
    mutating func count(_ fault: SharedValue.Fault) { faults[fault.rawValue, default: 0] += 1 }
}

/// The statistics while they grow.
final class Tally: Sendable {
    let statistics = Monitor(SharedStatistics())

    func count(_ change: (inout SharedStatistics) -> Void) { statistics.update(change) }

    var now: SharedStatistics { statistics.withLock { $0 } }
}
