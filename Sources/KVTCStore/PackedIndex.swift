import CLinux
import Glibc

/// What the index keeps of a page that is on disk only: 80 bytes.
struct PackedPage {
    // Four words and not a vector, which would be aligned to 32 bytes.
    fileprivate var words: (UInt64, UInt64, UInt64, UInt64)
    fileprivate var tenant: UInt32
    fileprivate var segment: UInt32
    /// In units of ``RecordHeader/alignment``.
    fileprivate var place: UInt32
    fileprivate var length: UInt32
    fileprivate var expires: UInt32
    fileprivate var firstPosition: UInt32
    fileprivate var tokens: UInt32
    fileprivate var rawBytes: UInt32
    fileprivate var lastUse: UInt32
    fileprivate var previous: UInt32
    fileprivate var next: UInt32
    fileprivate var priority: UInt8
    fileprivate var flags: UInt8

    fileprivate static let usedFlag: UInt8 = 0x80
    /// The order of use counts to 2⁶⁴, packed to 2³² in steps of this many uses.
    fileprivate static let useShift = 4

    /// Nil when a number does not fit, which takes pages of 4 GiB or dates after 2106.
    fileprivate init?(_ entry: PageEntry, segment number: UInt32) {
        guard let location = entry.disk, let place = UInt32(exactly: location.offset / RecordHeader.alignment),
            let length = UInt32(exactly: entry.length), let rawBytes = UInt32(exactly: entry.attributes.rawBytes),
            let expires = UInt32(exactly: entry.attributes.expires ?? 0)
        else { return nil }
        let key = entry.key.words
        words = (key[0], key[1], key[2], key[3])
        tenant = entry.key.tenant
        segment = number
        self.place = place
        self.length = length
        self.expires = expires
        firstPosition = entry.attributes.firstPosition
        tokens = entry.attributes.tokens
        self.rawBytes = rawBytes
        lastUse = UInt32(clamping: entry.lastUse >> Self.useShift)
        previous = PackedIndex.none
        next = PackedIndex.none
        priority = entry.attributes.priority
        flags = entry.attributes.flags | (entry.lastUse > entry.writtenUse ? Self.usedFlag : 0)
    }

    var key: StoreKey { StoreKey(tenant: tenant, words: SIMD4(words.0, words.1, words.2, words.3)) }
    var bytes: Int { Int(length) }
    var offset: Int { Int(place) * RecordHeader.alignment }
    var recordBytes: Int { RecordHeader.recordBytes(payload: bytes)! }
    var isPinned: Bool { flags & 1 != 0 }
    /// Whether the page was used since it was written.
    var isUsed: Bool { flags & Self.usedFlag != 0 }
    var use: UInt64 { UInt64(lastUse) << Self.useShift }

    var attributes: PageAttributes {
        PageAttributes(
            flags: flags & ~Self.usedFlag, priority: priority, expires: UInt64(expires), firstPosition: firstPosition,
            tokens: tokens, rawBytes: UInt64(rawBytes))
    }

    func isExpired(at now: UInt64) -> Bool { attributes.expires.map { $0 <= now } ?? false }

    fileprivate func matches(_ other: StoreKey) -> Bool {
        words.0 == other.words[0] && words.1 == other.words[1] && words.2 == other.words[2] && words.3 == other.words[3]
            && tenant == other.tenant
    }
}

/// The pages that are on disk only, of which there may be millions: packed, in a table that is found through hash tables
/// of 32 bit numbers, and linked by segment. Between 87 and 94 bytes a page.
struct PackedIndex {
    fileprivate static let none = UInt32.max
    /// Pages that lie together: some 10 MB, so that most of them get large pages of memory.
    private static let chunk = 1 << 17
    /// Hash tables grow by doubling; many small ones never take long.
    private static let shards = 256

    private struct SegmentPages {
        let segment: Segment
        var first = PackedIndex.none
        var count = 0
    }

    private var chunks: [ContiguousArray<PackedPage>] = []
    private var free = none
    private var tables = [ContiguousArray<UInt32>](repeating: [], count: shards)
    /// Eight bits of each number's hash: a place that is passed over costs no look at its page, which is elsewhere in
    /// memory. 0 for an empty place.
    private var tags = [ContiguousArray<UInt8>](repeating: [], count: shards)
    private var fill = [Int](repeating: 0, count: shards)
    private var segments: [SegmentPages?] = []
    private var segmentNumbers: [UInt64: UInt32] = [:]
    /// Random, so that nobody can choose keys that collide.
    private let seed = UInt64.random(in: 0 ... .max)
    /// Pages.
    private(set) var count = 0
    /// Record bytes of pinned pages.
    private(set) var pinnedBytes = 0
    /// Pages that expire some day.
    private var expiring = 0
    /// No page expires before this second.
    private var earliest = UInt64.max
    private var nextEarliest = UInt64.max
    private var cursor: UInt32 = 0
    private var slots: UInt32 = 0

    /// Memory taken up.
    var bytes: Int {
        Int(slots) * MemoryLayout<PackedPage>.stride
            + tables.reduce(0) { $0 + $1.count * (MemoryLayout<UInt32>.stride + 1) }
    }

    subscript(_ number: UInt32) -> PackedPage {
        get { chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
        _modify { yield &chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
    }

    func location(_ page: PackedPage) -> DiskLocation {
        DiskLocation(segments[Int(page.segment)]!.segment, page.offset, page.recordBytes)
    }

    // MARK: - Finding

    private func hash(_ key: StoreKey) -> UInt64 {
        withUnsafeBytes(of: key.words) { checksum($0, seed: seed &+ UInt64(key.tenant)) }
    }

    // The lowest bits choose the place, the highest the table.
    private func tag(_ hash: UInt64) -> UInt8 { max(1, UInt8(truncatingIfNeeded: hash >> 48)) }

    /// Where the key's number is, or the empty place where it would be.
    private func probe(_ key: StoreKey, _ hash: UInt64) -> (table: Int, slot: Int) {
        let table = Int(hash >> 56)
        let mask = tables[table].count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        let tag = tag(hash)
        while tags[table][slot] != 0 {
            if tags[table][slot] == tag, self[tables[table][slot]].matches(key) { break }
            slot = (slot + 1) & mask
        }
        return (table, slot)
    }

    func find(_ key: StoreKey) -> UInt32? {
        let hash = hash(key)
        guard !tables[Int(hash >> 56)].isEmpty else { return nil }
        let (table, slot) = probe(key, hash)
        let number = tables[table][slot]
        return number == Self.none ? nil : number
    }

    /// Asks for the memory that finding these keys will touch, so that many are waited for at a time and not one after another.
    func prefetch(_ keys: ArraySlice<StoreKey>) {
        guard count > 0 else { return }
        let places = keys.map { key -> (table: Int, slot: Int, tag: UInt8) in
            let hash = hash(key)
            let table = Int(hash >> 56)
            return (table, Int(truncatingIfNeeded: hash) & (tables[table].count - 1), tag(hash))
        }
        for place in places where !tables[place.table].isEmpty {
            tags[place.table].withUnsafeBufferPointer { clinux_prefetch($0.baseAddress! + place.slot) }
            tables[place.table].withUnsafeBufferPointer { clinux_prefetch($0.baseAddress! + place.slot) }
        }
        for place in places where !tables[place.table].isEmpty && tags[place.table][place.slot] == place.tag {
            let number = Int(tables[place.table][place.slot])
            chunks[number / Self.chunk].withUnsafeBufferPointer {
                let page = UnsafeRawPointer($0.baseAddress! + number % Self.chunk)
                clinux_prefetch(page)
                clinux_prefetch(page + MemoryLayout<PackedPage>.size - 1)
            }
        }
    }

    // MARK: - Changing

    /// Packs what an entry says; false when that does not fit.
    mutating func insert(_ entry: PageEntry) -> Bool {
        guard let segment = entry.disk?.segment, var page = PackedPage(entry, segment: register(segment)) else {
            return false
        }
        let number = takeNumber(page)
        page.next = segments[Int(page.segment)]!.first
        if page.next != Self.none { self[page.next].previous = number }
        segments[Int(page.segment)]!.first = number
        segments[Int(page.segment)]!.count += 1
        self[number] = page
        enter(number, entry.key)
        count += 1
        if page.isPinned { pinnedBytes += page.recordBytes }
        if let expires = entry.attributes.expires {
            expiring += 1
            earliest = min(earliest, expires)
            nextEarliest = min(nextEarliest, expires)
        }
        return true
    }

    /// Takes a page out.
    mutating func remove(_ number: UInt32) {
        let page = self[number]
        if page.previous != Self.none {
            self[page.previous].next = page.next
        } else {
            segments[Int(page.segment)]!.first = page.next
        }
        if page.next != Self.none { self[page.next].previous = page.previous }
        segments[Int(page.segment)]!.count -= 1
        leave(page.key)
        count -= 1
        if page.isPinned { pinnedBytes -= page.recordBytes }
        if page.attributes.expires != nil { expiring -= 1 }
        // A free slot is known by its length, which no page has.
        self[number].length = 0
        self[number].next = free
        free = number
    }

    /// Notes a use.
    mutating func touch(_ number: UInt32, _ use: UInt64) {
        self[number].lastUse = UInt32(clamping: use >> PackedPage.useShift)
        self[number].flags |= PackedPage.usedFlag
    }

    /// Forgets a segment that has no pages left here, so that its file can be closed.
    mutating func forget(segment id: UInt64) {
        guard let number = segmentNumbers[id], segments[Int(number)]!.count == 0 else { return }
        segmentNumbers[id] = nil
        segments[Int(number)] = nil
    }

    private mutating func register(_ segment: Segment) -> UInt32 {
        if let number = segmentNumbers[segment.id] { return number }
        let number = segments.firstIndex { $0 == nil } ?? segments.count
        if number == segments.count { segments.append(nil) }
        segments[number] = SegmentPages(segment: segment)
        segmentNumbers[segment.id] = UInt32(number)
        return UInt32(number)
    }

    private mutating func takeNumber(_ page: PackedPage) -> UInt32 {
        if free != Self.none {
            defer { free = self[free].next }
            return free
        }
        if Int(slots) % Self.chunk == 0 {
            var chunk = ContiguousArray<PackedPage>()
            chunk.reserveCapacity(Self.chunk)
            chunk.withUnsafeMutableBufferPointer { Self.preferLargePages($0.baseAddress!) }
            chunks.append(chunk)
        }
        chunks[chunks.count - 1].append(page)
        slots += 1
        return slots - 1
    }

    /// A page is looked at here and there: with large pages of memory its address costs no look into memory of its own. All is
    /// well without them.
    private static func preferLargePages(_ start: UnsafeMutablePointer<PackedPage>) {
        let page: UInt = 4096
        let aligned = (UInt(bitPattern: start) + page - 1) / page * page
        madvise(
            UnsafeMutableRawPointer(bitPattern: aligned), chunk * MemoryLayout<PackedPage>.stride - Int(page),
            MADV_HUGEPAGE)
    }

    private mutating func enter(_ number: UInt32, _ key: StoreKey) {
        let hash = hash(key)
        let table = Int(hash >> 56)
        if (fill[table] + 1) * 4 > tables[table].count * 3 { grow(table) }
        let (_, slot) = probe(key, hash)
        set(table, slot, number, tag(hash))
        fill[table] += 1
    }

    private mutating func set(_ table: Int, _ slot: Int, _ number: UInt32, _ tag: UInt8) {
        tables[table][slot] = number
        tags[table][slot] = tag
    }

    private mutating func grow(_ table: Int) {
        let old = tables[table]
        let count = max(8, old.count * 2)
        tables[table] = ContiguousArray(repeating: Self.none, count: count)
        tags[table] = ContiguousArray(repeating: 0, count: count)
        for number in old where number != Self.none {
            let key = self[number].key
            let hash = hash(key)
            let (_, slot) = probe(key, hash)
            set(table, slot, number, tag(hash))
        }
    }

    private mutating func leave(_ key: StoreKey) {
        var (table, gap) = probe(key, hash(key))
        let mask = tables[table].count - 1
        // Those behind that had to step over the gap move up, so that no marks of deletion are needed.
        var slot = gap
        while true {
            slot = (slot + 1) & mask
            let number = tables[table][slot]
            guard number != Self.none else { break }
            let home = Int(truncatingIfNeeded: hash(self[number].key)) & mask
            if (slot - home) & mask >= (slot - gap) & mask {
                set(table, gap, number, tags[table][slot])
                gap = slot
            }
        }
        set(table, gap, Self.none, 0)
        fill[table] -= 1
    }

    // MARK: - Going through them

    /// The pages in a segment, in no order.
    func numbers(in id: UInt64) -> [UInt32] {
        guard let segment = segmentNumbers[id] else { return [] }
        var result: [UInt32] = []
        result.reserveCapacity(segments[Int(segment)]!.count)
        var number = segments[Int(segment)]!.first
        while number != Self.none {
            result.append(number)
            number = self[number].next
        }
        return result
    }

    /// The pages for which `isWanted` holds. Goes through all of them.
    func numbers(where isWanted: (PackedPage) -> Bool) -> [UInt32] {
        (0..<slots).filter { number in
            let page = self[number]
            return page.length > 0 && isWanted(page)
        }
    }

    /// Pages whose time is over. Looks at a limited number and goes on from there the next time.
    mutating func expired(at now: UInt64, looking limit: Int) -> [UInt32] {
        guard expiring > 0, earliest <= now, slots > 0 else { return [] }
        var result: [UInt32] = []
        for _ in 0..<min(limit, Int(slots)) {
            let page = self[cursor]
            if page.length > 0, let expires = page.attributes.expires {
                if expires <= now { result.append(cursor) } else { nextEarliest = min(nextEarliest, expires) }
            }
            cursor += 1
            if cursor == slots {
                cursor = 0
                (earliest, nextEarliest) = (nextEarliest, .max)
                break
            }
        }
        return result
    }
}
