// Who gives way. A tenant's share of a tier is the tier divided by the number of tenants that have pages there. Those
// above their share compete by priority and use; the others are left alone.
extension StoreIndex {
    /// The page that leaves RAM next so that `length` bytes of `tenant` (nil: of no tenant) find room; protected pages come
    /// last.
    /// - Parameter ownOnly: only the tenant's own pages may go.
    func victim(
        for tenant: UInt32?, needing length: Int, budget: Int, includingProtected: Bool, ownOnly: Bool
    ) -> UInt32? {
        if !ownOnly {
            let greedy = aboveShare(tenant, length, budget: budget)
            if let page = next(greedy, protected: false) { return page }
            if includingProtected, let page = next(greedy, protected: true) { return page }
        }
        // What the greedy ones have may not go: then at most the tenant's own, never what a third one keeps.
        let own = tenant.flatMap { tenants[$0] }
        return own?.next(protected: false)?.number ?? (includingProtected ? own?.next(protected: true)?.number : nil)
    }

    private func aboveShare(_ tenant: UInt32?, _ length: Int, budget: Int) -> [TenantPages] {
        let holders = tenants.filter { $0.value.usage.ramBytes > 0 }
        let isNew = tenant.map { holders[$0] == nil } ?? false
        let share = budget / max(1, holders.count + (isNew ? 1 : 0))
        let greedy = holders.filter { $0.value.usage.ramBytes + ($0.key == tenant ? length : 0) > share }
        if !greedy.isEmpty { return Array(greedy.values) }
        // RAM can be full without any tenant above the share: in pieces too small, or let go but still being read.
        let most = holders.values.map(\.usage.ramBytes).max() ?? 0
        return holders.values.filter { $0.usage.ramBytes == most }
    }

    private func next(_ tenants: [TenantPages], protected: Bool) -> UInt32? {
        let oldest = tenants.compactMap { $0.next(protected: protected) }
        guard oldest.count > 1 else { return oldest.first?.number }
        return oldest.min { ($0.list, pages.lastUse($0.number)) < ($1.list, pages.lastUse($1.number)) }?.number
    }

    /// The tenants whose pages on disk outlive the segment they lie in because they are few: at most half of the budget,
    /// divided by the number of tenants. (The other half is what a log needs to make progress.) Empty for a sole tenant.
    func withinDiskShare(budget: Int) -> Set<UInt32> {
        let holders = tenants.filter { $0.value.usage.diskBytes > 0 }
        guard holders.count > 1 else { return [] }
        let share = budget / 2 / holders.count
        return Set(holders.filter { $0.value.usage.diskBytes <= share }.keys)
    }

    func isOverDiskQuota(_ tenant: UInt32, _ bytes: Int, _ quota: Int) -> Bool {
        quota > 0 && (tenants[tenant]?.usage.diskBytes ?? 0) + bytes > quota
    }

    /// Drops a tenant's least recently used pages from the disk until `bytes` more stay within its quota, and a little
    /// beyond, so that the next page need not search again. False when protected pages are in the way.
    mutating func trimDisk(of tenant: UInt32, by bytes: Int, quota: Int) -> Bool {
        func used() -> Int { tenants[tenant]?.usage.diskBytes ?? 0 }
        guard isOverDiskQuota(tenant, bytes, quota) else { return true }
        let droppable = pages.numbers {
            pages[$0].tenant == tenant && pages.isOnDisk($0) && !pages.isProtected($0)
        }
        // Of pages used together the end of a conversation goes first.
        let order = droppable.map { number in
            (number, rank: (pages.priority(number), pages.lastUse(number), .max - pages.firstPosition(number)))
        }
        for (number, _) in order.sorted(by: { $0.rank < $1.rank }) where used() + bytes > quota - quota / 16 {
            _ = drop(entry(number))
        }
        return used() + bytes <= quota
    }
}
