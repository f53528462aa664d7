import KVTCProtocol
import KVTCStore
import TestSupport

@testable import KVTCDaemon

// Pages are cut off, dropped, lost, flushed, leased and brought.
extension SessionSimulation {
    mutating func truncate() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let end = Int.random(in: 0...sessions[at].tokens, using: &generator)
        let request = TruncateRequest(session: sessions[at].id, tokens: UInt32(end))
        let reply = try engine.truncate(request, sessions[at].caller)
        let left = sessions[at].cut(at: end)
        try require(
            reply.tokens == sessions[at].tokens && reply.pages == left.count,
            "cut to \(end): \(reply) instead of \(sessions[at].tokens) and \(left.count)")
        leave(sessions[at], left)
        narrow()
    }

    mutating func drop() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let session = sessions[at]
        let isAll = chance(3)
        let others = Set(sessions.filter { $0.id != session.id }.flatMap(\.pages))
        let pages =
            isAll
            ? session.pages.filter { !others.contains($0) }
            : names.filter { $0.tenant == session.caller.tenant && $0.model == session.model && chance(4) }
        guard isAll || !pages.isEmpty else { return }
        _ = try engine.drop(DropRequest(session: session.id, keys: isAll ? [] : pages.map(\.key)), session.caller)
        forget(pages)
        if isAll {
            leave(session, session.pages)
            sessions[at].pages = []
        }
        try requireGone(pages)
        narrow()
    }

    /// Without a session: everything, or keys of all models of which the tenant has had sessions.
    mutating func dropOfTenant() throws {
        let caller = newCaller(.random(in: 1...2, using: &generator))
        let own = names.filter { $0.tenant == caller.tenant }
        let isAll = chance(3)
        let keys = isAll ? [] : Set(own.filter { _ in chance(8) }.map(\.key))
        guard isAll || !keys.isEmpty else { return }
        let pages =
            isAll ? own : own.filter { keys.contains($0.key) && opened[caller.tenant]?.contains($0.model) == true }
        let named = own.map(\.key).filter { keys.contains($0) }
        _ = try engine.drop(DropRequest(session: Wire.none, keys: named), caller)
        forget(pages)
        try requireGone(pages)
        narrow()
    }

    private mutating func forget(_ pages: [PageID]) {
        for page in pages {
            let earliest = known[page]?.earliestEnd
            known[page] = nil
            // A process that died before it was gone leaves it there, with an end that it had.
            if plan.total > 0, let earliest { known[page, default: Known(page)].setEnd(earliest) }
            for at in sessions.indices {
                sessions[at].pages.removeAll { $0 == page }
                sessions[at].lease?.pages.remove(page)
            }
        }
    }

    private func requireGone(_ pages: [PageID]) throws {
        for page in pages where !plan.hasCrashed {
            try require(engine.store.residence(page.storeKey) == .absent, "\(page) is there after a drop")
        }
    }

    /// A page goes from the store without anybody's doing, as when it is evicted.
    mutating func lose() {
        let page = randomPage()
        guard known[page] != nil else { return }
        engine.store.remove(page.storeKey)
        known[page] = Known(page)
        for at in sessions.indices { sessions[at].lease?.pages.remove(page) }
    }

    mutating func flush() throws {
        guard let session = sessions.randomElement(using: &generator) else { return }
        drain()
        try follow()
        let isAll = Bool.random(using: &generator)
        let request = FlushRequest(session: isAll ? Wire.none : session.id)
        do { _ = try engine.flush(try engine.flushed(request, session.caller), session.caller) } catch {
            return try require(plan.total > faultsAtStart, "a flush failed without a reason: \(error)")
        }
        guard !plan.hasCrashed, let now = sessions.first(where: { $0.id == session.id }) else { return }
        for (page, state) in known where page.tenant == session.caller.tenant && state.isThere {
            if isAll || now.pages.contains(page) { known[page]!.isFlushed = true }
        }
    }

    /// With a lease, which ends with its time or its connection.
    mutating func lookup() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let session = sessions[at]
        let request = LookupRequest(session: session.id, leaseMs: 5000, keys: session.pages.map(\.key))
        let reply = try engine.lookup(request, session.caller)
        guard !plan.hasCrashed else { return }
        let found = zip(session.pages, reply.residence).filter { $0.1 != .absent }.map(\.0)
        sessions[at].lease = reply.lease == 0 ? nil : (reply.lease, Set(found), elapsed + 5000)
    }

    mutating func prefetch() throws {
        guard let session = sessions.randomElement(using: &generator) else { return }
        _ = try engine.prefetch(
            PrefetchRequest(session: session.id, keys: session.pages.map(\.key)), session.caller)
        while engine.readers.runNext() {}
    }
}
