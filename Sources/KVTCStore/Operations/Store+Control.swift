extension Store {
    /// Promises that those of the pages that are there stay fetchable until `deadline` (see ``milliseconds``) or until
    /// the lease is released, their expiry notwithstanding. Returns the lease's id, never 0.
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
            guard let number = index.pages.find(key), let entry = index.pages.awake(number), entry.holds > 0 else {
                return false
            }
            index.mutate(entry) { $0.holds -= 1 }
            return true
        }
    }

    /// Changes what is not nil or ``ExpiryChange/keep``, and counts as a use. False when the page is not there.
    ///
    /// A page in RAM keeps the change when the process is killed. Of a page on disk only it is written at once, but for expiry,
    /// which may change with every use, and is written with the next ``flush(_:order:)``. That makes all of it durable.
    ///
    /// - Parameter waits: false: nothing is written, and ``writeMarks(_:)`` is to follow.
    @discardableResult
    public func update(
        _ key: StoreKey, pinned: Bool? = nil, priority: UInt8? = nil, expiry: ExpiryChange = .keep,
        promised: Bool? = nil, waits: Bool = true
    ) -> Bool {
        let (isThere, onDisk) = index.withLock { index -> (Bool, PageEntry?) in
            guard let entry = index.live(key, at: now) else { return (false, nil) }
            let before = entry.attributes
            let now = self.now
            index.touch(entry, index.nextTick())
            index.mutate(entry) { entry in
                if let pinned { entry.attributes.pinned = pinned }
                if let priority { entry.attributes.priority = priority }
                if let promised { entry.attributes.promised = promised }
                switch expiry {
                case .keep: if entry.isRenewed(at: now) { entry.attributes.expire(after: before.ttl, from: now) }
                case .never: (entry.attributes.expires, entry.attributes.ttl) = (nil, 0)
                case .at(let second): (entry.attributes.expires, entry.attributes.ttl) = (second, 0)
                case .after(let ttl): entry.attributes.expire(after: ttl, from: now)
                case .afterAtLeast(let ttl):
                    if before.expires != nil { entry.attributes.expire(after: max(ttl, before.ttl), from: now) }
                }
                guard entry.logged else { return }
                if entry.attributes != before { entry.attributesDirty = true }
                if !entry.attributes.hasSameMarks(as: before) { entry.marksDirty = true }
            }
            // A later one is found when the earlier one comes up; that of a pinned page has gone from there.
            let (expires, wasPinned) = (entry.attributes.expires, before.pinned && !entry.attributes.pinned)
            if let expires, wasPinned || expires < before.expires ?? .max { index.expiry.push(expires, entry.number) }
            let changed = !entry.attributes.hasSameMarks(as: before)
            return (true, changed && entry.ram == nil && entry.attributesDirty ? entry : nil)
        }
        if waits, let onDisk { writeMarks(onDisk) }
        return isThere
    }

    /// Writes marks of a page on disk only that ``update(_:pinned:priority:expiry:promised:waits:)`` has left to this.
    public func writeMarks(_ key: StoreKey) {
        let entry = index.withLock { index in index.pages.find(key).flatMap { index.pages.awake($0) } }
        if let entry, index.withLock({ _ in entry.ram == nil && entry.marksDirty }) { writeMarks(entry) }
    }

    /// What cannot be written now stays due.
    private func writeMarks(_ entry: PageEntry) {
        try? withLog { (log) throws(StoreError) in try writeAttributes(entry, &log) }
    }

    /// Removes a page, protected or not. A restart does not bring it back, nor a power cut once a flush has answered; while the
    /// disk fails, both hold from the first flush that works. False when it was not there.
    @discardableResult
    public func remove(_ key: StoreKey) -> Bool {
        remove([key]) == 1
    }

    /// Removes pages as ``remove(_:)-(StoreKey)`` does; returns how many were there.
    public func remove(_ keys: [StoreKey]) -> Int {
        defer { noteRemovals() }
        return takeOut(keys)
    }

    /// Removes pages without waiting for the disk, so that a restart may bring them back until ``noteRemovals()`` has been called.
    public func takeOut(_ keys: [StoreKey]) -> Int {
        index.withLock { index in
            var removed = 0
            for key in keys {
                guard let entry = index.entry(key) else {
                    if index.mayMissRecords { index.tombstones.append(Removal(key)) }
                    continue
                }
                if !entry.isExpired(at: now) { removed += 1 }
                index.remove(entry)
            }
            return removed
        }
    }

    /// Removes every page of a tenant; returns how many were there.
    public func removeAll(tenant: UInt32) -> Int {
        removeUnread(tenant: tenant)
        return remove(keys(tenant: tenant))
    }

    /// Removes what a tenant may have in records that could not be read when the store was opened.
    public func removeUnread(tenant: UInt32) {
        index.withLock { if $0.mayMissRecords { $0.tombstones.append(Removal(tenant: tenant)) } }
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
            // What many were woken for may be over.
            index.pages.restSome(beyond: index.awakeLimit, looking: 1 << 14)
            return index.purgeExpired(at: now) + index.purgeResting(at: now)
        }
    }

    /// What each tenant's pages take up.
    public var usage: [UInt32: TenantUsage] { index.withLock { $0.tenants.mapValues(\.usage) } }

    /// What the store holds and has done.
    public var statistics: StoreStatistics {
        var (counters, tenants) = index.withLock { index in
            index.counters.restingPages = index.pages.resting
            index.counters.indexBytes = index.pages.bytes
            return (index.counters, index.tenants.values.map(\.usage))
        }
        for usage in tenants { counters.add(usage) }
        counters.ramUsed = ram.used
        counters.ramBudget = ram.budget
        counters.diskBudget = hasDisk ? configuration.diskBudget : 0
        return counters
    }
}

/// Pages of a conversation that are used together, from its beginning.
public struct PageUse: Sendable {
    /// The place in the order of uses.
    public let place: UInt64
    /// The pages, there or not.
    public let pages: [StoreKey]

    /// One of them.
    struct Part {
        let use: PageUse
        let index: Int
        /// Those before it.
        var before: ArraySlice<StoreKey> { use.pages[..<index] }
    }
}
