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

    private struct SegmentPages {
        let segment: Segment
        var first = PackedIndex.none
        var count = 0
    }

    private var chunks: [ContiguousArray<PackedPage>] = []
    private var free = none
    private var table = KeyTable()
    private var segments: [SegmentPages?] = []
    private var segmentNumbers: [UInt64: UInt32] = [:]
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
    var bytes: Int { Int(slots) * MemoryLayout<PackedPage>.stride + table.bytes }

    subscript(_ number: UInt32) -> PackedPage {
        get { Self.page(number, in: chunks) }
        _modify { yield &chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
    }

    private static func page(_ number: UInt32, in chunks: [ContiguousArray<PackedPage>]) -> PackedPage {
        chunks[Int(number) / chunk][Int(number) % chunk]
    }

    func location(_ page: PackedPage) -> DiskLocation {
        DiskLocation(segments[Int(page.segment)]!.segment, page.offset, page.recordBytes)
    }

    // MARK: - Finding

    func find(_ key: StoreKey) -> UInt32? { table.find(table.hash(key)) { self[$0].matches(key) } }

    /// Asks for the memory that finding these keys will touch, so that many are waited for at a time and not one after another.
    func prefetch(_ keys: ArraySlice<StoreKey>) {
        guard count > 0 else { return }
        let hashes = keys.map { table.hash($0) }
        table.prefetch(hashes)
        for hash in hashes {
            guard let number = table.guess(hash).map({ Int($0) }) else { continue }
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
        do {
            // Apart from the table, so that it can ask for keys while it changes; given back before the pages change.
            let (pages, hash) = (chunks, table.hash)
            table.insert(number, hash(entry.key)) { hash(Self.page($0, in: pages).key) }
        }
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
        do {
            // Apart from the table, so that it can ask for keys while it changes; given back before the pages change.
            let (pages, hash) = (chunks, table.hash)
            table.remove(number, hash(page.key)) { hash(Self.page($0, in: pages).key) }
        }
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
