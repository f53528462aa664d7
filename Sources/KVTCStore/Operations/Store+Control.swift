extension Store {
    /// Sees to it that those of the pages that are there stay fetchable until `deadline` (see ``milliseconds``) or
    /// until the lease is released, their expiry notwithstanding. Returns the lease's id, never 0.
    public func lease(_ keys: [StoreKey], until deadline: UInt64) -> UInt64 {
        index.withLock { index in
            index.releaseOverdue(at: milliseconds)
            return index.lease(keys, until: deadline, now: now)
        }
    }

    /// Ends a lease. False when there is none of that id, or its time is over.
    public func release(_ lease: UInt64) -> Bool {
        index.withLock { index in
            index.releaseOverdue(at: milliseconds)
            return index.release(lease)
        }
    }

    /// Gives a lease another deadline. False when it has ended.
    public func extend(_ lease: UInt64, until deadline: UInt64) -> Bool {
        index.withLock { index in
            index.releaseOverdue(at: milliseconds)
            return index.extend(lease, until: deadline)
        }
    }

    /// Notes one use of the pages of a conversation, given from its beginning, which is to stay longest: those that are there are
    /// used last from now on, and their expiry is put off.
    /// - Parameter earlier: a use that this one is the continuation of, so that the parts of a conversation stay in order however
    ///   they are asked for; pages used since stay before it.
    @discardableResult
    public func use(_ keys: [StoreKey], continuing earlier: UInt64? = nil) -> PageUse {
        let place = earlier ?? index.withLock { $0.nextTick() }
        // A limited number under each lock.
        for first in stride(from: 0, to: keys.count, by: 256).reversed() {
            index.withLock { $0.touch(keys[first..<min(first + 256, keys.count)], at: now, use: place) }
        }
        return PageUse(place: place, pages: keys)
    }

    /// Whether the lease covers the page and both are still there.
    public func leased(_ lease: UInt64, _ key: StoreKey) -> Bool {
        index.withLock { index in
            index.releaseOverdue(at: milliseconds)
            return index.isLeased(lease, key)
        }
    }

    /// Keeps a page from being dropped (moving to disk stays possible) until as many ``unhold(_:)`` have followed.
    /// False when it is not there.
    public func hold(_ key: StoreKey) -> Bool {
        index.withLock { index in
            guard let entry = index.live(key, at: now) else { return false }
            index.mutate(entry) { $0.holds += 1 }
            return true
        }
    }

    /// Undoes one ``hold(_:)``. False when the page is gone or not held.
    @discardableResult
    public func unhold(_ key: StoreKey) -> Bool {
        index.withLock { index in
            guard let number = index.pages.find(key), let entry = index.pages.expanded(number), entry.holds > 0 else {
                return false
            }
            index.mutate(entry) { $0.holds -= 1 }
            return true
        }
    }

    /// The keys of a tenant's pages, in no order.
    public func keys(tenant: UInt32) -> [StoreKey] {
        index.withLock { $0.keys(tenant: tenant) }
    }

    /// Removes pages whose time is over. They are misses anyway; this gives their room back early. Of pages that are on disk
    /// only it looks at some and goes on from there the next time.
    public func purgeExpired() -> Int {
        index.withLock { index in
            index.releaseOverdue(at: milliseconds)
            // What many were expanded for may be over.
            index.pages.compactSome(beyond: index.expandedLimit, looking: 1 << 14)
            return index.purgeExpired(at: now) + index.purgeCompact(at: now)
        }
    }

    /// What each tenant's pages take up.
    public var usage: [UInt32: TenantUsage] { index.withLock { $0.tenants.mapValues(\.usage) } }

    /// Bytes of RAM in use, and how many there may be.
    package var ramUsed: Int { ram.used }
    package var ramBudget: Int { ram.budget }

    /// Bytes of RAM that a tenant's pages take.
    package func ramUsed(by tenant: UInt32) -> Int { index.withLock { $0.tenants[tenant]?.usage.ramBytes ?? 0 } }

    /// What the store holds and has done.
    public var statistics: StoreStatistics {
        var (counters, tenants) = index.withLock { index in
            index.counters.compactPages = index.pages.compactCount
            index.counters.indexBytes = index.pages.bytes
            return (index.counters, index.tenants.values.map(\.usage))
        }
        for usage in tenants { counters.add(usage) }
        counters.ramUsed = ram.used
        counters.ramBudget = ram.budget
        counters.ramRefusal = ram.refusal
        counters.diskBudget = hasDisk ? configuration.diskBudget : 0
        return counters
    }

    /// As ``StoreStatistics/ramRefusal``.
    public var ramRefusal: String? { ram.refusal }
}
