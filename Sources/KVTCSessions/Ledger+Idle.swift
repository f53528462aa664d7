import KVTCCodec
import struct KVTCStore.StoreKey

// What becomes of the window of an idle session, where its policy has a bound for that.
extension Ledger {
    /// Notes a request; the window of a session that was idle is closed to the coder again.
    package mutating func touch(_ id: UInt32, now: UInt64) {
        lastUse = max(lastUse, now)
        change(id) {
            $0.lastUse = now
            $0.isIdle = false
        }
    }

    /// Takes sessions without a request since `deadline` for idle where their policy makes something of it. Gives the pages
    /// of their windows that may be coded now; they count as queued.
    package mutating func markIdle(unusedSince deadline: UInt64) -> [StoreKey] {
        var ready: [StoreKey] = []
        for (id, session) in sessions
        where session.policy.near != nil && !session.isIdle && session.lastUse <= deadline {
            change(id) { $0.isIdle = true }
            for page in session.pages[session.released...] where queue(page.key) { ready.append(page.key) }
        }
        return ready
    }

    /// The strictest wish of the sessions, idle or over, whose window holds the page.
    func nearChoice(_ page: LedgerPage) -> CodingChoice? {
        let idle = page.users.keys.sorted().compactMap { id -> CodingChoice? in
            guard let session = sessions[id], session.isIdle, let first = page.users[id],
                first + page.tokens > session.windowBegin
            else { return nil }
            return .near(session.policy)
        }
        guard let strictest = CodingChoice.strictest(idle + [page.near]) else { return nil }
        // It may have been pushed without a profile; then there is nothing between exact and too lossy.
        return page.context.codec.profile == nil ? .lossless : strictest
    }

    /// Begins to put the bytes that a session pushes in the place of those that are there: until `pushed`
    /// says that it is done or ``endRenewal(_:_:)`` that it failed no other thread replaces or drops the page. Gives what the page was.
    package mutating func beginRenewal(_ key: StoreKey) -> LedgerPage.Phase? {
        guard let phase = pages[key]?.phase else { return nil }
        setPhase(key, .replacing)
        return phase
    }

    /// Ends a renewal that failed. Gives the page if it is to be coded; it counts as queued.
    package mutating func endRenewal(_ key: StoreKey, _ before: LedgerPage.Phase) -> [StoreKey] {
        guard let page = pages[key], page.phase == .replacing else { return [] }
        guard case .coded = before else {
            setPhase(key, .raw)
            return queued([key])
        }
        setPhase(key, before)
        if page.users.isEmpty { forget(key) }
        return []
    }
}
