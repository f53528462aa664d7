/// What the index keeps of every page: 80 bytes, which is all of it while the page is compact, that is while it is not
/// used and nothing unusual is to be remembered. The checksum and the last use of a page in RAM lie in its slot of the
/// arena.
struct CompactEntry {
    enum State: UInt8 {
        /// No page.
        case free
        /// There is a ``PageEntry``, which counts.
        case expanded
        /// In RAM, perhaps on disk too.
        case inRAM
        case onDisk
    }

    // Four words and not a vector, which would be aligned to 32 bytes.
    private let words: (UInt64, UInt64, UInt64, UInt64)
    let tenant: UInt32
    /// Neighbours among the pages that leave RAM in turn, or among those that are only in the same segment. ``next`` of
    /// a free one is another one.
    var previous = PageList.none
    var next = PageList.none
    /// In RAM: the slot of the arena's directory. On disk only: the last use. Expanded: where the entry is.
    private(set) var word: UInt32
    /// In RAM: where, in units of the allocator. On disk only: the seconds that the page lives after a use.
    private(set) var place: UInt32 = 0
    /// On disk, in units of ``RecordHeader/alignment``.
    private(set) var recordPlace: UInt32 = 0
    private var length: UInt32 = 0
    private var expires: UInt32 = 0
    private var rawBytes: UInt32 = 0
    private(set) var firstPosition: UInt32 = 0
    /// The number of tokens; above ``tokenBits`` the attributes' flags that ``flags`` has no room for.
    private var tokens: UInt16 = 0
    private(set) var segment = SegmentNumbers.none
    private(set) var arena: UInt8 = 0
    private(set) var priority: UInt8 = 0
    private var flags: UInt8 = 0
    private(set) var state: State

    private static let (attributeFlags, dirtyFlag, loggedFlag, usedFlag): (UInt8, UInt8, UInt8, UInt8) =
        (0x1F, 0x20, 0x40, 0x80)
    private static let attributeBits: UInt8 = 5
    private static let tokenBits: UInt16 = 14
    /// The order of use counts to 2⁶⁴, on disk to 2³² in steps of this many uses.
    private static let useShift = 4

    /// A page with an entry.
    init(_ key: StoreKey, entry: Int) {
        words = (key.words[0], key.words[1], key.words[2], key.words[3])
        tenant = key.tenant
        word = UInt32(entry)
        state = .expanded
    }

    /// Notes what an entry says; false when a number does not fit, which takes pages of 4 GiB or of 16 384 tokens, or
    /// dates after 2106.
    mutating func take(_ entry: PageEntry) -> Bool {
        let attributes = entry.attributes
        guard let length = UInt32(exactly: entry.length), let rawBytes = UInt32(exactly: attributes.rawBytes),
            let tokens = UInt16(exactly: attributes.tokens), tokens >> Self.tokenBits == 0,
            let expires = UInt32(exactly: attributes.expires ?? 0),
            let recordPlace = UInt32(exactly: (entry.disk?.offset ?? 0) / RecordHeader.alignment)
        else { return false }
        (self.length, self.rawBytes, self.expires) = (length, rawBytes, expires)
        self.tokens = tokens | UInt16(attributes.flags >> Self.attributeBits) << Self.tokenBits
        (self.recordPlace, firstPosition, priority) = (recordPlace, attributes.firstPosition, attributes.priority)
        flags =
            attributes.flags & Self.attributeFlags | (entry.attributesDirty ? Self.dirtyFlag : 0)
            | (entry.logged ? Self.loggedFlag : 0)
            | (entry.lastUse > entry.writtenUse ? Self.usedFlag : 0)
        state = entry.ram == nil ? .onDisk : .inRAM
        place = attributes.ttl
        return true
    }

    mutating func expand(entry: Int) {
        word = UInt32(entry)
        state = .expanded
    }

    mutating func moveEntry(to position: Int) { word = UInt32(position) }

    mutating func setFree(next: UInt32) {
        self.next = next
        state = .free
    }

    /// Tells most pages from another one that has the number later.
    var tag: UInt64 { words.0 }

    var key: StoreKey { StoreKey(tenant: tenant, words: SIMD4(words.0, words.1, words.2, words.3)) }

    func matches(_ other: StoreKey) -> Bool {
        words.0 == other.words[0] && words.1 == other.words[1] && words.2 == other.words[2] && words.3 == other.words[3]
            && tenant == other.tenant
    }
}

// What it says of a compact page.
extension CompactEntry {
    var bytes: Int { Int(length) }
    var isPinned: Bool { flags & 1 != 0 }
    var isOnDisk: Bool { segment != SegmentNumbers.none }
    var offset: Int { Int(recordPlace) * RecordHeader.alignment }
    /// 0 for a page that is in RAM only.
    var recordBytes: Int { isOnDisk ? RecordHeader.recordBytes(payload: bytes)! : 0 }
    /// Whether the page was used since it was written.
    var isUsed: Bool { flags & Self.usedFlag != 0 }
    var attributesDirty: Bool { flags & Self.dirtyFlag != 0 }
    var logged: Bool { flags & Self.loggedFlag != 0 }
    /// The position in the order of use of a page that is on disk only.
    var use: UInt64 { UInt64(word) << Self.useShift }

    /// - Parameter ttl: in RAM that is known to the slot of the arena.
    func attributes(ttl: UInt32) -> PageAttributes {
        PageAttributes(
            flags: flags & Self.attributeFlags | UInt8(tokens >> Self.tokenBits) << Self.attributeBits,
            priority: priority, expires: UInt64(expires), ttl: ttl, firstPosition: firstPosition,
            tokens: UInt32(tokens & (1 << Self.tokenBits - 1)), rawBytes: UInt64(rawBytes))
    }

    /// The list of its tenant that a page in RAM is linked in.
    var list: Int { isPinned ? TenantPages.protectedList : Int(priority) }

    /// Nil: never.
    var expiry: UInt64? { flags & 4 != 0 ? UInt64(expires) : nil }
    var position: UInt32 { firstPosition }

    func isExpired(at now: UInt64) -> Bool { !isPinned && expiry.map { $0 <= now } ?? false }

    /// Puts off the expiry of a page that is on disk only; the log does not say so.
    mutating func renew(until second: UInt64) {
        expires = UInt32(clamping: second)
        flags |= Self.dirtyFlag
    }

    mutating func setUsed() { flags |= Self.usedFlag }
    mutating func setUse(_ use: UInt64) { word = UInt32(clamping: use >> Self.useShift) }

    mutating func set(segment: UInt16) { self.segment = segment }
    mutating func set(arena: UInt8, place: UInt32, slot: UInt32) {
        (self.arena, self.place, word) = (arena, place, slot)
    }
}
