/// All pages. Most of them rest in their rows; those in use, and those of which something unusual is to be remembered, are
/// awake: they have an entry besides. Between 87 and 94 bytes a page that rests.
struct PageTable {
    private var rows = PageRows()
    private var table = KeyTable()
    /// The entries of pages that are awake, in no order, without gaps.
    private(set) var entries: ContiguousArray<PageEntry> = []
    /// Where the next entry is looked for that may rest.
    private var hand = 0
    private var segments = SegmentNumbers()
    private var arenas: [RAMArena?] = []
    /// Pages.
    private(set) var count = 0
    /// Record bytes of pinned pages that rest.
    private(set) var pinnedBytes = 0
    /// Pages that rest on disk and expire some day.
    private var expiring = 0
    /// Pages that rest on disk and expire later than the log says.
    private(set) var renewed = 0
    /// None of them expires before this second.
    private var earliest = UInt64.max
    private var nextEarliest = UInt64.max
    private var cursor: UInt32 = 0

    /// An entry and its extent take this much, as measured.
    private static let entryBytes = 260
    /// Memory taken up.
    var bytes: Int { rows.bytes + table.bytes + entries.count * Self.entryBytes }
    /// Pages that rest.
    var resting: Int { count - entries.count }

    subscript(_ number: UInt32) -> PageRow { rows[number] }

    /// Where a page that rests lies on disk.
    func location(_ row: PageRow) -> DiskLocation? {
        row.isOnDisk ? DiskLocation(segments[row.segment], row.offset, row.recordBytes) : nil
    }

    /// Position in the order of use.
    func lastUse(_ number: UInt32) -> UInt64 {
        let row = rows[number]
        return switch row.state {
        case .free: 0
        case .awake: entries[Int(row.word)].lastUse
        case .inRAM: arenas[Int(row.arena)]!.lastUse(Int(row.word))
        case .onDisk: row.use
        }
    }

    func firstPosition(_ number: UInt32) -> UInt32 {
        awake(number)?.attributes.firstPosition ?? rows[number].firstPosition
    }

    /// Seconds that a page that rests lives after a use.
    private func ttl(_ row: PageRow) -> UInt32 {
        // Of a page that never expires the slot, which is elsewhere in memory, need not be looked at.
        if row.expiry == nil { return 0 }
        return row.state == .inRAM ? arenas[Int(row.arena)]!.ttl(Int(row.word)) : row.place
    }

    /// What is said of a page, which rests or is awake.
    func attributes(_ number: UInt32) -> PageAttributes {
        awake(number)?.attributes ?? rows[number].attributes(ttl: ttl(rows[number]))
    }

    /// Whether a use of a page that rests puts its expiry off, and until when.
    func renewal(_ number: UInt32, at now: UInt64) -> UInt64? {
        guard let expiry = rows[number].expiry else { return nil }
        let ttl = ttl(rows[number])
        return ttl > 0 && now &+ UInt64(ttl) > expiry ? now &+ UInt64(ttl) : nil
    }

    /// Puts off the expiry of a page that rests on disk.
    mutating func renew(_ number: UInt32, until second: UInt64) {
        if !rows[number].attributesDirty { renewed += 1 }
        rows[number].renew(until: second)
    }

    /// The numbers of pages that rest and for which `isWanted` holds. Goes through all of them, of which there may be millions.
    func resting(where isWanted: (PageRow) -> Bool) -> [UInt32] {
        rows.numbers { ($0.state == .inRAM || $0.state == .onDisk) && isWanted($0) }
    }

    // MARK: - Finding

    func find(_ key: StoreKey) -> UInt32? { table.find(table.hash(key)) { rows[$0].matches(key) } }

    /// The entry of a page that is awake.
    func awake(_ number: UInt32) -> PageEntry? {
        rows[number].state == .awake ? entries[Int(rows[number].word)] : nil
    }

    /// Whether this very entry is there.
    func contains(_ entry: PageEntry) -> Bool { entry.number < rows.count && awake(entry.number) === entry }

    /// Asks for the memory that finding these keys will touch, so that many are waited for at a time and not one after another.
    func prefetch(_ keys: ArraySlice<StoreKey>) {
        guard count > 0 else { return }
        let hashes = keys.map { table.hash($0) }
        table.prefetch(hashes)
        for hash in hashes {
            if let number = table.guess(hash) { rows.prefetch(number) }
        }
    }

    // MARK: - Coming and going

    /// Enters an entry whose key is not there.
    mutating func insert(_ entry: PageEntry) {
        entry.number = rows.insert(PageRow(entry.key, entry: entries.count))
        do {
            // Apart from the table, so that it can ask for keys while it changes; given back before the rows change.
            let (rows, hash) = (rows, table.hash)
            table.insert(entry.number, hash(entry.key)) { hash(rows[$0].key) }
        }
        entries.append(entry)
        count += 1
    }

    /// Takes out an entry that is there and in no list.
    mutating func remove(_ entry: PageEntry) {
        do {
            let (rows, hash) = (rows, table.hash)
            table.remove(entry.number, hash(entry.key)) { hash(rows[$0].key) }
        }
        removeEntry(Int(rows[entry.number].word))
        rows.remove(entry.number)
        count -= 1
    }

    private mutating func removeEntry(_ position: Int) {
        let last = entries.removeLast()
        guard position < entries.count else { return }
        entries[position] = last
        rows[last.number].moveEntry(to: position)
    }

    /// Makes an entry of a page that rests.
    mutating func wake(_ number: UInt32) -> PageEntry {
        let row = rows[number]
        let entry = PageEntry(key: row.key, attributes: attributes(number), length: row.bytes, hash: nil)
        entry.number = number
        entry.disk = location(row)
        entry.logged = row.logged
        entry.attributesDirty = row.attributesDirty
        if row.state == .inRAM {
            let arena = arenas[Int(row.arena)]!
            entry.ram = RAMExtent(arena, place: row.place, length: row.bytes, slot: row.word)
            entry.hash = arena.hash(Int(row.word))
            entry.list = row.list
        } else {
            rows.unlink(number, from: &segments.pages[Int(row.segment)]!.onDisk)
            if row.expiry != nil { expiring -= 1 }
            if row.attributesDirty { renewed -= 1 }
        }
        if row.isOnDisk { segments.leave(row.segment) }
        if row.isPinned { pinnedBytes -= row.recordBytes }
        // Only the order counts, and whether the page was used since it was written.
        entry.lastUse = max(1, lastUse(number))
        entry.writtenUse = row.isUsed ? entry.lastUse - 1 : entry.lastUse
        rows[number].wake(entry: entries.count)
        entries.append(entry)
        return entry
    }

    /// Lets unused pages in RAM rest: looks at a few and goes on from there the next time.
    mutating func restSome(beyond limit: Int, looking attempts: Int) {
        for _ in 0..<attempts where entries.count > limit {
            if hand >= entries.count { hand = 0 }
            if !restInRAM(hand) { hand += 1 }
        }
    }

    /// False when the page is not in RAM, is in use, or more is to be remembered of it than fits.
    private mutating func restInRAM(_ position: Int) -> Bool {
        // A holder of the entry or its extent may change the one or read the other, and got it under the lock that is held here.
        guard isKnownUniquelyReferenced(&entries[position]), isKnownUniquelyReferenced(&entries[position].ram)
        else { return false }
        let entry = entries[position]
        guard !entry.marksDirty, let extent = entry.ram, let arena = register(extent.arena), rest(entry) else {
            return false
        }
        let (place, slot) = extent.rest()
        rows[entry.number].set(arena: arena, place: place, slot: slot)
        return true
    }

    /// Lets a page rest that is on disk only and in no list; false when more is to be remembered of it than fits.
    mutating func restOnDisk(_ entry: PageEntry) -> Bool {
        guard entry.ram == nil, entry.disk != nil, rest(entry) else { return false }
        let number = entry.number
        rows[number].setUse(entry.lastUse)
        rows.append(number, to: &segments.pages[Int(rows[number].segment)]!.onDisk)
        if entry.attributesDirty { renewed += 1 }
        if let expires = entry.attributes.expires {
            expiring += 1
            earliest = min(earliest, expires)
            nextEarliest = min(nextEarliest, expires)
        }
        return true
    }

    private mutating func rest(_ entry: PageEntry) -> Bool {
        var row = rows[entry.number]
        let position = Int(row.word)
        guard entry.leases == 0, entry.holds == 0, entry.shadow == nil, row.rest(entry) else { return false }
        if let segment = entry.disk?.segment {
            guard let number = segments.enter(segment) else { return false }
            row.set(segment: number)
        } else {
            row.set(segment: SegmentNumbers.none)
        }
        if row.isPinned { pinnedBytes += row.recordBytes }
        rows[entry.number] = row
        removeEntry(position)
        return true
    }

    /// Notes a use of a page that rests.
    mutating func noteUse(_ number: UInt32, _ use: UInt64) {
        if rows[number].state == .inRAM {
            arenas[Int(rows[number].arena)]!.noteUse(Int(rows[number].word), use)
        } else {
            rows[number].setUse(use)
        }
        rows[number].setUsed()
    }

    // MARK: - Arenas

    private mutating func register(_ arena: RAMArena) -> UInt8? {
        if let number = arenas.firstIndex(where: { $0 === arena }) { return UInt8(number) }
        let number = arenas.firstIndex { $0 == nil } ?? arenas.count
        guard let result = UInt8(exactly: number) else { return nil }
        if number == arenas.count { arenas.append(nil) }
        arenas[number] = arena
        return result
    }

    /// Whether a page in RAM lies in the arena.
    func isIn(_ arena: RAMArena, _ number: UInt32) -> Bool {
        awake(number).map { $0.ram?.arena === arena } ?? (arenas[Int(rows[number].arena)] === arena)
    }

    /// Forgets an arena that has no pages left.
    mutating func forget(_ arena: RAMArena) {
        if let number = arenas.firstIndex(where: { $0 === arena }) { arenas[number] = nil }
    }
}

// MARK: - Lists, and going through what rests on disk

extension PageTable {
    mutating func append(_ number: UInt32, to list: inout PageList) { rows.append(number, to: &list) }

    mutating func insert(_ number: UInt32, before other: UInt32, in list: inout PageList) {
        rows.insert(number, before: other, in: &list)
    }

    mutating func unlink(_ number: UInt32, from list: inout PageList) { rows.unlink(number, from: &list) }

    /// The pages of a list, oldest first.
    func numbers(_ list: PageList) -> [UInt32] {
        var result: [UInt32] = []
        var number = list.oldest
        while number != PageList.none {
            result.append(number)
            number = rows[number].next
        }
        return result
    }

    /// The oldest page of a list for which `isWanted` holds.
    func first(_ list: PageList, where isWanted: (UInt32) -> Bool) -> UInt32? {
        var number = list.oldest
        while number != PageList.none, !isWanted(number) { number = rows[number].next }
        return number == PageList.none ? nil : number
    }

    /// The pages that rest in a segment only, in no order.
    func numbers(in id: UInt64) -> [UInt32] {
        segments.number(id).map { numbers(segments.pages[Int($0)]!.onDisk) } ?? []
    }

    /// Of pages in RAM, those that rest and have a record in a segment too.
    func resting(_ numbers: [UInt32], in id: UInt64) -> [UInt32] {
        guard let segment = segments.number(id) else { return [] }
        return numbers.filter { rows[$0].state == .inRAM && rows[$0].segment == segment }
    }

    /// Forgets a segment that has no pages left here, so that its file can be closed.
    mutating func forget(segment id: UInt64) { segments.forget(id) }

    /// Pages that rest on disk whose time is over. Looks at a limited number and goes on from there the next time.
    mutating func expired(at now: UInt64, looking limit: Int) -> [UInt32] {
        guard expiring > 0, earliest <= now, rows.count > 0 else { return [] }
        var result: [UInt32] = []
        for _ in 0..<min(limit, Int(rows.count)) {
            let row = rows[cursor]
            if row.state == .onDisk, !row.isPinned, let expires = row.expiry {
                if expires <= now { result.append(cursor) } else { nextEarliest = min(nextEarliest, expires) }
            }
            cursor += 1
            if cursor == rows.count {
                cursor = 0
                (earliest, nextEarliest) = (nextEarliest, .max)
                break
            }
        }
        return result
    }
}
