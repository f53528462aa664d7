import KVTCModel

/// A page that a session uses or that waits for its coder.
package struct LedgerPage {
    package enum Phase: Equatable {
        /// Not coded and not asked for.
        case raw
        /// May be coded, and stays as it is until there is a reason to; its place among those that do.
        case waiting(UInt64)
        /// An encode job was asked for.
        case queued
        /// The job runs.
        case encoding
        /// The coded block takes the raw one's place right now.
        case replacing
        /// Coded, and what it is then; nil when that has not been read yet.
        case coded(CodedPage?)

        package var isCoded: Bool { if case .coded = self { true } else { false } }
    }

    package let generation: UInt64
    package let tokens: Int
    package let context: CodingContext
    package var phase: Phase
    /// The sessions that use it, with the position of its first token in each.
    package var users: [UInt32: Int] = [:]
    /// Rows that sessions protected which are over by now, or have gone back over it.
    package var retained: RowSet
    /// What those sessions asked of its coding, the pusher's choice where that leaves it open.
    package var retainedChoice: CodingChoice?
    /// When the soonest of them wanted it coded.
    package var retainedTime: CodingTime?
    /// The strictest wish of the sessions that are over and had it in their window.
    package var near: CodingChoice?
    /// The session that pushed it.
    package var owner: UInt32

    package var isCoded: Bool { phase.isCoded }

    /// Its place among the pages that wait; nil where it does not.
    package var place: UInt64? { if case .waiting(let place) = phase { place } else { nil } }
}
