import KVTCModel
import struct KVTCStore.StoreKey

// Pages that may be coded and stay as they are, exact and quick to give back, until somebody has a reason to code them.
extension Ledger {
    /// Queues those of the pages that are raw, that no window holds and that are to be coded at once; the others wait.
    mutating func queued(_ keys: [StoreKey]) -> [StoreKey] { keys.filter { queue($0) } }

    /// Queues a page, if it is raw, no window holds it and it is to be coded at once; lets it wait if only that is not so.
    package mutating func queue(_ key: StoreKey) -> Bool {
        guard let page = pages[key], page.phase == .raw || page.place != nil, !isInAnyWindow(page) else { return false }
        let time = codingTime(page)
        if time != .atOnce {
            if page.place == nil { wait(key, isIdle: time == .idle) }
            return false
        }
        setPhase(key, .queued)
        return true
    }

    func isInAnyWindow(_ page: LedgerPage) -> Bool {
        page.users.contains { id, first in
            sessions[id].map { !$0.isIdle && first + page.tokens > $0.windowBegin } ?? false
        }
    }

    /// When the page is to be coded: as soon as any of those who rely on it wants that.
    func codingTime(_ page: LedgerPage) -> CodingTime {
        let users = page.users.keys.map { id in sessions[id].map { $0.policy.code ?? code } }
        return CodingTime.soonest(users + [page.retainedTime]) ?? code
    }

    /// Lets a page wait that no window holds.
    mutating func wait(_ key: StoreKey, isIdle: Bool) {
        if waiting.isSweepDue { sweepPlaces() }
        setPhase(key, .waiting(waiting.append(key, isIdle: isIdle)))
    }

    private mutating func sweepPlaces() {
        let pages = pages
        waiting.sweep { pages[$0.key]?.place == $0.place }
    }

    /// Queues the page that has waited longest, of a tenant or of all; nil where none waits.
    package mutating func takeWaiting(of tenant: UInt32? = nil) -> StoreKey? {
        while let entry = waiting.popFirst(of: tenant) {
            if pages[entry.key]?.place == entry.place, take(entry.key) { return entry.key }
        }
        return nil
    }

    /// The same of those that are coded when there is nothing else to do.
    package mutating func takeIdle() -> StoreKey? {
        while let entry = waiting.popFirstIdle() {
            if pages[entry.key]?.place == entry.place, take(entry.key) { return entry.key }
        }
        return nil
    }

    /// Queues those of the pages that wait, the longest first; nil for all.
    package mutating func takeWaiting(among keys: Set<StoreKey>?) -> [StoreKey] {
        let found = pages.compactMap { key, page -> (StoreKey, UInt64)? in
            keys?.contains(key) ?? true ? page.place.map { (key, $0) } : nil
        }
        return found.sorted { $0.1 < $1.1 }.map(\.0).filter { take($0) }
    }

    /// Queues a page if it waits; false where it does not, or a window has taken it back meanwhile.
    package mutating func take(_ key: StoreKey) -> Bool {
        guard let page = pages[key], page.place != nil else { return false }
        let isFree = !isInAnyWindow(page)
        setPhase(key, isFree ? .queued : .raw)
        return isFree
    }

    /// Takes pages that wait for what they are without that, so that a changed policy can be held against them.
    mutating func stopWaiting(_ keys: some Sequence<StoreKey>) {
        for key in keys where pages[key]?.place != nil { setPhase(key, .raw) }
    }

    /// Pages that wait, of a tenant or of all.
    package func waitingPages(of tenant: UInt32?) -> Int {
        pages.count { (tenant == nil || $0.key.tenant == tenant) && $0.value.place != nil }
    }

    /// Places in the order of those that wait, also such as no page has any more.
    package var placesHeld: Int { waiting.count }

    /// Pages that wait though no session uses them any more; the store may have let them go.
    package var unusedWaiting: [StoreKey] {
        pages.compactMap { $0.value.place != nil && $0.value.users.isEmpty ? $0.key : nil }
    }
}
