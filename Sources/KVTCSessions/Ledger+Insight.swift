import KVTCCodec
import KVTCModel
import struct KVTCStore.StoreKey

/// What the ledger knows of a page, for people who ask why it is as it is.
package struct PageInsight {
    package var phase: LedgerPage.Phase
    /// The open sessions that use it, by number.
    package var sessions: [UInt32]
    package var isInWindow: Bool
    /// Whether rows of it are a session's sink, lie in one of its ranges, or stay exact for one that is over.
    package var hasSink: Bool
    package var hasRange: Bool
    package var hasRetained: Bool
    /// Whether those who rely on it want it lossless as a whole.
    package var isLossless: Bool
    package var time: CodingTime
    package var profile: ProfileID?
}

extension Ledger {
    /// Nil for a page that no session uses and that waits for nothing.
    package func insight(_ key: StoreKey) -> PageInsight? {
        guard let page = pages[key] else { return nil }
        var insight = PageInsight(
            phase: page.phase, sessions: page.users.keys.sorted(), isInWindow: isInAnyWindow(page), hasSink: false,
            hasRange: false, hasRetained: page.retained.count > 0, isLossless: choice(page).mode.isExact,
            time: codingTime(page), profile: page.context.codec.profile?.id)
        for (id, first) in page.users {
            guard let protection = sessions[id]?.protection else { continue }
            insight.hasSink = insight.hasSink || first < protection.sink
            insight.hasRange =
                insight.hasRange || protection.ranges.contains { $0.overlaps(first..<first + page.tokens) }
        }
        return insight
    }
}
