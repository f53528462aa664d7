// A page of which nothing unusual need be remembered is compact; a change expands it. A page on disk only is compact
// again as soon as a change allows it, one in RAM when it is no longer used.
extension StoreIndex {
    /// The entry of a page, which is expanded if it is compact.
    mutating func entry(_ number: UInt32) -> PageEntry {
        if let entry = pages.expanded(number) { return entry }
        pages.compactSome(beyond: expandedLimit, looking: 2)
        let wasOnDisk = pages[number].state == .onDisk
        let entry = pages.expand(number)
        if wasOnDisk, let expires = entry.attributes.expires { expiry.push(expires, number) }
        return entry
    }

    /// The entry of a page that has not expired.
    mutating func live(_ key: StoreKey, at now: Moment) -> PageEntry? {
        guard let number = pages.find(key), !pages.isExpired(number, at: now) else { return nil }
        return entry(number)
    }

    /// The entry of a page, expired or not.
    mutating func entry(_ key: StoreKey) -> PageEntry? { pages.find(key).map { entry($0) } }

    /// The entry of the page whose record lies there.
    mutating func entry(_ key: StoreKey, at location: DiskLocation) -> PageEntry? {
        guard let number = pages.find(key), pages.location(number)?.isSame(as: location) == true else { return nil }
        return entry(number)
    }

    /// What is known of a page that has not expired.
    func view(_ key: StoreKey, at now: Moment) -> PageView? {
        guard let number = pages.find(key), !pages.isExpired(number, at: now) else { return nil }
        return pages.view(number)
    }

    /// The same of many. A loop in here, as a closure that captures the index would copy it for each page.
    func views(_ keys: ArraySlice<StoreKey>, at now: Moment) -> [PageView?] {
        pages.prefetch(keys)
        var result: [PageView?] = []
        result.reserveCapacity(keys.count)
        for key in keys { result.append(view(key, at: now)) }
        return result
    }

    /// Notes a use of a page, now or at `use` in the order of use, which puts its expiry off; gives its number. Nil
    /// when there is no such page, or it has expired.
    mutating func touch(_ key: StoreKey, at now: Moment, use: UInt64? = nil) -> UInt32? {
        guard let number = pages.find(key), !pages.isExpired(number, at: now) else { return nil }
        // It may have been used again since.
        let isLast = use.map { $0 > pages.lastUse(number) } ?? true
        let page = pages[number]
        let renewal = page.state == .expanded ? nil : pages.renewal(number, from: now.next)
        if page.state == .onDisk {
            if isLast { pages.noteUse(number, use ?? nextTick()) }
            if let renewal { pages.renew(number, until: renewal) }
        } else if let entry = renewal != nil ? entry(number) : pages.expanded(number) {
            if isLast { touch(entry, use ?? nextTick()) }
            renew(entry, at: now)
        } else if isLast {
            pages.noteUse(number, use ?? nextTick())
            moveToEnd(number, of: page.list, tenant: page.tenant)
        }
        return number
    }

    /// Notes one use of the pages of a conversation, given from its beginning: that is to stay longest. Gives the place
    /// of the use in the order of use.
    mutating func touch(_ keys: ArraySlice<StoreKey>, at now: Moment, use: UInt64) {
        pages.prefetch(keys)
        for key in keys.reversed() { _ = touch(key, at: now, use: use) }
    }

    /// Makes a page on disk only compact if nothing is to be remembered that does not fit.
    mutating func compactIfPossible(_ entry: PageEntry) {
        guard let disk = entry.disk, !entry.marksDirty, unsafeSegments[disk.segment.id] == nil,
            pages.contains(entry)
        else { return }
        _ = pages.compactOnDisk(entry)
    }

    /// The entries of pages whose record lies in the segment: of compact ones there only, those for which `isWanted`
    /// holds.
    mutating func entries(in segment: UInt64, expanding isWanted: (CompactEntry) -> Bool) -> [PageEntry] {
        let expanded = pages.entries.filter { $0.disk?.segment.id == segment }
        let wanted = pages.numbers(in: segment).filter { isWanted(pages[$0]) } + pages.compact(inRAM, in: segment)
        // In the order of writing.
        return (expanded + wanted.map { entry($0) }).sorted { $0.disk!.offset < $1.disk!.offset }
    }

    /// The pages in RAM. Goes through their lists.
    var inRAM: [UInt32] { tenants.values.flatMap { $0.lists.flatMap { pages.numbers($0) } } }

    /// All keys of a tenant.
    func keys(tenant: UInt32) -> [StoreKey] {
        pages.numbers { pages[$0].tenant == tenant }.map { pages[$0].key }
    }
}
