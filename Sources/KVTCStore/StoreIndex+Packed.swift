/// What can be said of a page without its entry.
struct PageView {
    var attributes: PageAttributes
    var length: Int
    var isInRAM: Bool
}

// Pages that are on disk only and of which nothing else need be remembered are packed; whoever wants to change one
// unpacks it first, and a change that leaves nothing to remember packs it again.
extension StoreIndex {
    /// The entry of a page that has not expired.
    mutating func live(_ key: StoreKey, at now: UInt64) -> PageEntry? {
        if let entry = pages[key] { return entry.isExpired(at: now) ? nil : entry }
        guard let number = packed.find(key), !packed[number].isExpired(at: now) else { return nil }
        return unpack(number)
    }

    /// The entry of a page, expired or not.
    mutating func entry(_ key: StoreKey) -> PageEntry? { pages[key] ?? packed.find(key).map { unpack($0) } }

    /// The entry of the page whose record lies there.
    mutating func entry(_ key: StoreKey, at location: DiskLocation) -> PageEntry? {
        if let entry = pages[key] { return entry.disk?.isSame(as: location) == true ? entry : nil }
        guard let number = packed.find(key), packed.location(packed[number]).isSame(as: location) else { return nil }
        return unpack(number)
    }

    /// What is known of a page that has not expired.
    func view(_ key: StoreKey, at now: UInt64) -> PageView? {
        if let entry = pages[key] {
            guard !entry.isExpired(at: now) else { return nil }
            return PageView(attributes: entry.attributes, length: entry.length, isInRAM: entry.ram != nil)
        }
        guard let number = packed.find(key), !packed[number].isExpired(at: now) else { return nil }
        return PageView(attributes: packed[number].attributes, length: packed[number].bytes, isInRAM: false)
    }

    /// Notes a use; false when there is no such page, or it has expired.
    mutating func touch(_ key: StoreKey, at now: UInt64) -> Bool {
        if let entry = pages[key] {
            guard !entry.isExpired(at: now) else { return false }
            touch(entry)
            return true
        }
        guard let number = packed.find(key), !packed[number].isExpired(at: now) else { return false }
        packed.touch(number, nextTick())
        return true
    }

    private mutating func unpack(_ number: UInt32) -> PageEntry {
        let page = packed[number]
        let entry = PageEntry(key: page.key, attributes: page.attributes, length: page.bytes, hash: nil)
        entry.disk = packed.location(page)
        entry.logged = true
        // Only the order counts, and whether the page was used since it was written.
        entry.lastUse = max(1, page.use)
        entry.writtenUse = page.isUsed ? entry.lastUse - 1 : entry.lastUse
        packed.remove(number)
        adopt(entry)
        return entry
    }

    /// Packs an entry if nothing is to be remembered that does not fit.
    mutating func packIfPossible(_ entry: PageEntry) {
        guard entry.ram == nil, let disk = entry.disk, entry.leases == 0, entry.holds == 0, !entry.attributesDirty,
            entry.shadow == nil, unsafeSegments[disk.segment.id] == nil, pages.contains(entry)
        else { return }
        if packed.insert(entry) { release(entry) }
    }

    /// The entries of pages whose record lies in the segment: of those packed, the ones for which `isWanted` holds.
    mutating func entries(in segment: UInt64, unpacking isWanted: (PackedPage) -> Bool) -> [PageEntry] {
        let wanted = packed.numbers(in: segment).filter { isWanted(packed[$0]) }
        let before = pages.values.filter { $0.disk?.segment.id == segment }
        // In the order of writing.
        return (before + wanted.map { unpack($0) }).sorted { $0.disk!.offset < $1.disk!.offset }
    }

    /// Removes packed pages that have expired; returns how many. Looks at a part of them at a time.
    mutating func purgePacked(at now: UInt64, looking limit: Int = 1 << 16) -> Int {
        let numbers = packed.expired(at: now, looking: limit)
        for number in numbers {
            remove(unpack(number))
            counters.expired += 1
        }
        return numbers.count
    }

    /// All keys of a tenant.
    func keys(tenant: UInt32) -> [StoreKey] {
        pages.keys.filter { $0.tenant == tenant }
            + packed.numbers { $0.key.tenant == tenant }.map { packed[$0].key }
    }
}
