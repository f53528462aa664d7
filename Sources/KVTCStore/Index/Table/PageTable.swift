/// All pages. Every page has a compact entry. Those in use, and those of which something unusual is to be remembered,
/// are expanded: they have a ``PageEntry`` besides, which counts. Between 87 and 94 bytes a page that is not.
struct PageTable {
    private var all = CompactEntries()
    private var table = KeyTable()
    /// The entries of expanded pages, in no order, without gaps.
    private(set) var entries: ContiguousArray<PageEntry> = []
    /// Where the next entry is looked for that is not in use any more: it goes round, as the hand of the CLOCK
    /// algorithm does.
    private var hand = 0
    private(set) var segments = SegmentNumbers()
    private(set) var arenas = ArenaNumbers()
    /// Pages.
    private(set) var count = 0
    /// Record bytes of pinned pages that are compact.
    private(set) var pinnedBytes = 0
    /// Compact pages on disk only that expire later than the log says.
    private(set) var renewed = 0
    private var sweep = ExpirySweep()

    /// An entry and its extent take this much, as measured.
    private static let entryBytes = 260
    /// Memory taken up.
    var bytes: Int { all.bytes + table.bytes + entries.count * Self.entryBytes }
    /// Pages that are compact.
    var compactCount: Int { count - entries.count }

    subscript(_ number: UInt32) -> CompactEntry { all[number] }

    /// Puts off the expiry of a compact page on disk only.
    mutating func renew(_ number: UInt32, until second: UInt64) {
        if !all[number].attributesDirty { renewed += 1 }
        all[number].renew(until: second)
    }

    /// The pages for which `isWanted` holds. Goes through all of them, of which there may be millions.
    func numbers(where isWanted: (UInt32) -> Bool) -> [UInt32] {
        (0..<all.count).filter { all[$0].state != .free && isWanted($0) }
    }

    // MARK: - Finding

    func find(_ key: StoreKey) -> UInt32? { table.find(table.hash(key)) { all[$0].matches(key) } }

    /// The entry of a page that is expanded.
    func expanded(_ number: UInt32) -> PageEntry? {
        all[number].state == .expanded ? entries[Int(all[number].word)] : nil
    }

    /// Whether this very entry is there.
    func contains(_ entry: PageEntry) -> Bool { entry.number < all.count && expanded(entry.number) === entry }

    /// Asks for the memory that finding these keys will touch, so that many are waited for at a time and not one after another.
    func prefetch(_ keys: ArraySlice<StoreKey>) {
        guard count > 0 else { return }
        let hashes = keys.map { table.hash($0) }
        table.prefetch(hashes)
        for hash in hashes {
            if let number = table.guess(hash) { all.prefetch(number) }
        }
    }

    // MARK: - Coming and going

    /// Enters an entry whose key is not there.
    mutating func insert(_ entry: PageEntry) {
        entry.number = all.insert(CompactEntry(entry.key, entry: entries.count))
        do {
            // Apart from the table, so that it can ask for keys while it changes; given back before they change.
            let (all, hash) = (all, table.hash)
            table.insert(entry.number, hash(entry.key)) { hash(all[$0].key) }
        }
        entries.append(entry)
        count += 1
    }

    /// Takes out an entry that is there and in no list.
    mutating func remove(_ entry: PageEntry) {
        do {
            let (all, hash) = (all, table.hash)
            table.remove(entry.number, hash(entry.key)) { hash(all[$0].key) }
        }
        removeEntry(Int(all[entry.number].word))
        all.remove(entry.number)
        count -= 1
    }

    private mutating func removeEntry(_ position: Int) {
        let last = entries.removeLast()
        guard position < entries.count else { return }
        entries[position] = last
        all[last.number].moveEntry(to: position)
    }

    /// Expands a page that is compact.
    mutating func expand(_ number: UInt32) -> PageEntry {
        let page = all[number]
        let entry = PageEntry(key: page.key, attributes: attributes(number), length: page.bytes, hash: nil)
        entry.number = number
        entry.disk = location(number)
        entry.logged = page.logged
        entry.attributesDirty = page.attributesDirty
        if page.state == .inRAM {
            let arena = arenas[page.arena]
            entry.ram = RAMExtent(arena, place: page.place, length: page.bytes, slot: page.word)
            entry.hash = arena.hash(Int(page.word))
            entry.list = page.list
        } else {
            all.unlink(number, from: &segments.pages[Int(page.segment)]!.onDisk)
            if page.expiry != nil { sweep.leave() }
            if page.attributesDirty { renewed -= 1 }
        }
        if page.isOnDisk { segments.leave(page.segment) }
        if page.isPinned { pinnedBytes -= page.recordBytes }
        // Only the order counts, and whether the page was used since it was written.
        entry.lastUse = max(1, lastUse(number))
        entry.writtenUse = page.isUsed ? entry.lastUse - 1 : entry.lastUse
        all[number].expand(entry: entries.count)
        entries.append(entry)
        return entry
    }

    /// Makes unused pages in RAM compact: looks at a few and goes on from there the next time.
    mutating func compactSome(beyond limit: Int, looking attempts: Int) {
        for _ in 0..<attempts where entries.count > limit {
            if hand >= entries.count { hand = 0 }
            if !compactInRAM(hand) { hand += 1 }
        }
    }

    /// False when the page is not in RAM, is in use, or more is to be remembered of it than fits.
    private mutating func compactInRAM(_ position: Int) -> Bool {
        // A holder of the entry or its extent may change the one or read the other, and got it under the lock that is held here.
        guard isKnownUniquelyReferenced(&entries[position]), isKnownUniquelyReferenced(&entries[position].ram)
        else { return false }
        let entry = entries[position]
        guard !entry.marksDirty, let extent = entry.ram, let arena = arenas.enter(extent.arena), compact(entry) else {
            return false
        }
        let (place, slot) = extent.detach()
        all[entry.number].set(arena: arena, place: place, slot: slot)
        return true
    }

    /// Makes a page compact that is on disk only and in no list; false when more is to be remembered of it than fits.
    mutating func compactOnDisk(_ entry: PageEntry) -> Bool {
        guard entry.ram == nil, entry.disk != nil, compact(entry) else { return false }
        let number = entry.number
        all[number].setUse(entry.lastUse)
        all.append(number, to: &segments.pages[Int(all[number].segment)]!.onDisk)
        if entry.attributesDirty { renewed += 1 }
        if let expires = entry.attributes.expires { sweep.enter(expires) }
        return true
    }

    private mutating func compact(_ entry: PageEntry) -> Bool {
        var page = all[entry.number]
        let position = Int(page.word)
        guard entry.leases == 0, entry.holds == 0, entry.shadow == nil, page.take(entry) else { return false }
        if let segment = entry.disk?.segment {
            guard let number = segments.enter(segment) else { return false }
            page.set(segment: number)
        } else {
            page.set(segment: SegmentNumbers.none)
        }
        if page.isPinned { pinnedBytes += page.recordBytes }
        all[entry.number] = page
        removeEntry(position)
        return true
    }

    /// Notes a use of a page that is compact.
    mutating func noteUse(_ number: UInt32, _ use: UInt64) {
        if all[number].state == .inRAM {
            arenas[all[number].arena].noteUse(Int(all[number].word), use)
        } else {
            all[number].setUse(use)
        }
        all[number].setUsed()
    }

    /// Forgets an arena that has no pages left.
    mutating func forget(_ arena: RAMArena) { arenas.forget(arena) }

    /// Forgets a segment that has no pages left here, so that its file can be closed.
    mutating func forget(segment id: UInt64) { segments.forget(id) }
}

extension PageTable {
    mutating func append(_ number: UInt32, to list: inout PageList) { all.append(number, to: &list) }

    mutating func insert(_ number: UInt32, before other: UInt32, in list: inout PageList) {
        all.insert(number, before: other, in: &list)
    }

    mutating func moveToEnd(_ number: UInt32, of list: inout PageList) {
        all.unlink(number, from: &list)
        all.append(number, to: &list)
    }

    mutating func unlink(_ number: UInt32, from list: inout PageList) { all.unlink(number, from: &list) }

    /// The pages of a list, oldest first.
    func numbers(_ list: PageList) -> [UInt32] {
        var result: [UInt32] = []
        var number = list.oldest
        while number != PageList.none {
            result.append(number)
            number = all[number].next
        }
        return result
    }

    /// The oldest page of a list for which `isWanted` holds.
    func first(_ list: PageList, where isWanted: (UInt32) -> Bool) -> UInt32? {
        var number = list.oldest
        while number != PageList.none, !isWanted(number) { number = all[number].next }
        return number == PageList.none ? nil : number
    }

    /// The compact pages in a segment only, in no order.
    func numbers(in id: UInt64) -> [UInt32] {
        segments.number(id).map { numbers(segments.pages[Int($0)]!.onDisk) } ?? []
    }

    /// Of pages in RAM, those that are compact and have a record in a segment too.
    func compact(_ numbers: [UInt32], in id: UInt64) -> [UInt32] {
        guard let segment = segments.number(id) else { return [] }
        return numbers.filter { all[$0].state == .inRAM && all[$0].segment == segment }
    }

    /// Pages on disk only, with a compact entry, whose time is over. Looks at a limited number and goes on from there
    /// the next time.
    mutating func expired(at now: UInt64, looking limit: Int) -> [UInt32] { sweep.next(limit, of: all, at: now) }
}
