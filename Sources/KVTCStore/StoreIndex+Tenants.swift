/// What one tenant's pages take up now, and what became of pages that had to go. Sizes are bytes.
public struct TenantUsage: Hashable, Sendable {
    /// All pages.
    public var pages = 0
    /// Pages not coded.
    public var rawPages = 0
    /// Pages with a copy in RAM.
    public var ramPages = 0
    /// Pages with a copy on disk.
    public var diskPages = 0
    /// Pages in RAM that the disk does not hold yet.
    public var dirtyPages = 0
    /// RAM in use, rounded up to the allocation unit.
    public var ramBytes = 0
    /// Disk records that count.
    public var diskBytes = 0
    /// The sizes of all pages before coding.
    public var rawBytes: UInt64 = 0
    /// The sizes of all pages as stored.
    public var storedBytes: UInt64 = 0
    /// Pages that left RAM and stayed on disk.
    public var evictedToDisk: UInt64 = 0
    /// Pages dropped to make room.
    public var dropped: UInt64 = 0

    /// Nothing.
    public init() {}

    /// Counts an entry in (`sign` 1) or out (-1).
    mutating func account(_ entry: PageEntry, _ sign: Int) {
        pages += sign
        rawPages += entry.attributes.coded ? 0 : sign
        ramPages += entry.ram == nil ? 0 : sign
        diskPages += entry.disk == nil ? 0 : sign
        dirtyPages += entry.isDirty ? sign : 0
        ramBytes += entry.ram == nil ? 0 : sign * (ExtentAllocator.rounded(entry.length) ?? 0)
        diskBytes += sign * (entry.disk?.recordBytes ?? 0)
        rawBytes = sign > 0 ? rawBytes &+ entry.attributes.rawBytes : rawBytes &- entry.attributes.rawBytes
        storedBytes = sign > 0 ? storedBytes &+ UInt64(entry.length) : storedBytes &- UInt64(entry.length)
    }
}

/// One tenant's pages in RAM in the order in which they leave it, and what all of its pages take up.
struct TenantPages {
    static let protectedList = 256

    /// One list per priority, then one of the protected pages; only pages in RAM are linked.
    var lists = [PageList](repeating: PageList(), count: protectedList + 1)
    var usage = TenantUsage()

    /// The next page to leave RAM: lowest priority first, then least recently used.
    func next(protected: Bool) -> PageEntry? {
        guard !protected else { return lists[Self.protectedList].oldest }
        for list in lists[0..<Self.protectedList] {
            if let entry = list.oldest { return entry }
        }
        return nil
    }
}

// Who gives way. A tenant's share of a tier is the tier divided by the number of tenants that have pages there. Those
// above their share compete by priority and use; the others are left alone.
extension StoreIndex {
    /// The page that leaves RAM next so that `length` bytes of `tenant` (nil: of nobody) find room; protected pages come
    /// last.
    /// - Parameter ownOnly: only the tenant's own pages may go.
    func victim(
        for tenant: UInt32?, needing length: Int, budget: Int, includingProtected: Bool, ownOnly: Bool
    ) -> PageEntry? {
        let own = tenant.flatMap { tenants[$0] }
        if !ownOnly {
            let greedy = aboveShare(tenant, length, budget: budget)
            if let entry = StoreIndex.next(greedy, protected: false) { return entry }
            if includingProtected, let entry = StoreIndex.next(greedy, protected: true) { return entry }
        }
        // What the greedy ones have may not go: then at most the tenant's own, never what a third one keeps.
        return own?.next(protected: false) ?? (includingProtected ? own?.next(protected: true) : nil)
    }

    private func aboveShare(_ tenant: UInt32?, _ length: Int, budget: Int) -> [TenantPages] {
        let holders = tenants.filter { $0.value.usage.ramBytes > 0 }
        let isNew = tenant.map { holders[$0] == nil } ?? false
        let share = budget / max(1, holders.count + (isNew ? 1 : 0))
        let greedy = holders.filter { $0.value.usage.ramBytes + ($0.key == tenant ? length : 0) > share }
        if !greedy.isEmpty { return Array(greedy.values) }
        // RAM can be full without anybody above the share: in pieces too small, or let go but still being read.
        let most = holders.values.map(\.usage.ramBytes).max() ?? 0
        return holders.values.filter { $0.usage.ramBytes == most }
    }

    private static func next(_ tenants: [TenantPages], protected: Bool) -> PageEntry? {
        tenants.compactMap { $0.next(protected: protected) }.min { a, b in
            (protected ? 0 : a.attributes.priority, a.lastUse) < (protected ? 0 : b.attributes.priority, b.lastUse)
        }
    }

    /// The tenants whose pages on disk outlive the segment they lie in because they are few: at most half of the budget,
    /// divided by the number of tenants. (The other half is what a log needs to make progress.) Empty for a sole tenant.
    func withinDiskShare(budget: Int) -> Set<UInt32> {
        let holders = tenants.filter { $0.value.usage.diskBytes > 0 }
        guard holders.count > 1 else { return [] }
        let share = budget / 2 / holders.count
        return Set(holders.filter { $0.value.usage.diskBytes <= share }.keys)
    }

    /// Drops a tenant's least recently used pages from the disk until `bytes` more stay within its quota, and a little
    /// beyond, so that the next page need not search again. False when protected pages are in the way.
    mutating func trimDisk(of tenant: UInt32, by bytes: Int, quota: Int) -> Bool {
        func used() -> Int { tenants[tenant]?.usage.diskBytes ?? 0 }
        guard quota > 0, used() + bytes > quota else { return true }
        let candidates = pages.values.filter { $0.key.tenant == tenant && $0.disk != nil && !$0.isProtected }
        var order = candidates.map { (key: $0.key, rank: ($0.attributes.priority, $0.lastUse)) }
        order += packed.numbers { $0.key.tenant == tenant && !$0.isPinned }.map { number in
            (packed[number].key, (packed[number].attributes.priority, packed[number].use))
        }
        order.sort { $0.rank < $1.rank }
        for (key, _) in order where used() + bytes > quota - quota / 16 {
            if let entry = entry(key) { _ = drop(entry) }
        }
        return used() + bytes <= quota
    }
}
