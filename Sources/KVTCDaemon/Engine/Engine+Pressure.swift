import KVTCSessions
import KVTCStore
import KVTCSystem

/// Which budgets of RAM run short: from above a mark until they are well below it, so that coding has a stretch of work and not a
/// page now and then.
struct Shortage {
    /// Percent of a budget between the mark and where there is enough again.
    static let relief = 10
    private var short: Set<UInt32?> = []

    /// - Parameter whose: a tenant's own budget; nil for the one of all.
    mutating func isShort(_ whose: UInt32?, used: Int, budget: Int, above percent: Int) -> Bool {
        let mark = percent - (short.contains(whose) ? Shortage.relief : 0)
        let isShort = used > budget / 100 * mark
        if isShort { short.insert(whose) } else { short.remove(whose) }
        return isShort
    }
}

// What has pages coded that wait: RAM that runs short, or a daemon with nothing else to do.
extension Engine {
    /// Hands pages to the coders that have waited longest while RAM is short. A few at a time: how it stands when those are done
    /// decides about more.
    /// - Parameter isFull: a page of the tenant finds no room.
    func relieve(_ tenant: UInt32, isFull: Bool = false) {
        while pendingEncodes < 2 * coders.width, let key = nextUnderPressure(tenant, isFull) {
            pressed.add(1, ordering: .acquiringAndReleasing)
            enqueue([key]) { [self] in
                pressed.subtract(1, ordering: .acquiringAndReleasing)
                relieve(tenant)
            }
        }
    }

    private func nextUnderPressure(_ tenant: UInt32, _ isFull: Bool) -> StoreKey? {
        if isFull { return ledger.withLock { $0.takeWaiting(of: tenant) ?? $0.takeWaiting() } }
        func isShort(_ whose: UInt32?, _ used: Int, _ budget: Int) -> Bool {
            shortage.withLock {
                $0.isShort(whose, used: used, budget: budget, above: configuration.codeAbovePercent)
            }
        }
        if isShort(nil, store.ramUsed, store.ramBudget), let key = ledger.withLock({ $0.takeWaiting() }) { return key }
        let quota = limits.ramPerUser
        guard quota > 0, isShort(tenant, store.ramUsed(by: tenant), quota) else { return nil }
        return ledger.withLock { $0.takeWaiting(of: tenant) }
    }

    /// Lets coders go first where there is no room for a push and for what they make of another page: none gives way, or goes to
    /// disk as it is, as long as there are some that can be made small. From the deadline on they do: a push must go on however
    /// slow coding is.
    func letCodersGoFirst(_ bytes: Int, _ tenant: UInt32, until deadline: UInt64) {
        while MonotonicClock.nanoseconds < deadline, !store.hasRoom(bytes, for: tenant) {
            let seen = encodesDone.withLock { $0 }
            relieve(tenant, isFull: true)
            guard pressed.load(ordering: .acquiring) > 0 else { return }
            if coders.runNextHere() { continue }
            guard encodesDone.wait(until: deadline, { $0 != seen ? true : nil }) != nil else { return }
        }
    }

    /// Hands pages to the coders that are to be coded when there is nothing else to do, and goes on while that is so.
    func codeWhileIdle(now: @escaping @Sendable () -> UInt64 = { MonotonicClock.nanoseconds }) {
        while pendingEncodes < coders.width, isQuiet(now()), let key = ledger.withLock({ $0.takeIdle() }) {
            enqueue([key]) { [self] in codeWhileIdle(now: now) }
        }
    }

    private func isQuiet(_ now: UInt64) -> Bool {
        let last = ledger.withLock { $0.lastUse }
        return now - min(now, last) >= Self.quiet && pool.waiting(.urgent) == 0
    }

    /// Nanoseconds without a request of any session after which there is nothing else to do.
    static let quiet: UInt64 = 1_000_000_000

    /// Has pages coded that wait, as they are about to go to disk, which is there for coded ones; nil for all.
    func encodeWaiting(_ keys: Set<StoreKey>?) { enqueue(ledger.withLock { $0.takeWaiting(among: keys) }) }

    /// Forgets pages that wait and that the store has let go, as no session is left that would come upon it.
    func forgetGoneWaiting() {
        let keys = ledger.withLock { $0.unusedWaiting }
        for first in stride(from: 0, to: keys.count, by: 1024) {
            ledger.withLock { ledger in
                let gone = keys[first..<min(first + 1024, keys.count)].filter { key in
                    ledger.pages[key]?.place != nil && !ledger.isUsed(key) && store.residence(key) == .absent
                }
                ledger.drop(gone)
            }
        }
    }
}
