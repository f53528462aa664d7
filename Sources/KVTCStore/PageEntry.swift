/// Where a page lies on disk.
struct DiskLocation: Sendable {
    let segment: Segment
    let offset: Int
    /// Bytes of header, payload and padding.
    let recordBytes: Int

    func isSame(as other: DiskLocation) -> Bool { segment === other.segment && offset == other.offset }

    init(_ segment: Segment, _ offset: Int, _ recordBytes: Int) {
        self.segment = segment
        self.offset = offset
        self.recordBytes = recordBytes
    }
}

/// What the index knows of one page.
///
/// Unchecked because every mutable field is read and written only under the index lock; references cross locks only to
/// be compared.
final class PageEntry: @unchecked Sendable {
    let key: StoreKey
    var attributes: PageAttributes
    var length: Int
    /// The checksum of the bytes as they were put; it travels with them through every tier. Nil for a page that is on disk
    /// only and has not been read: there it lies in the record.
    var hash: UInt64?
    var ram: RAMExtent?
    var disk: DiskLocation?
    /// Counts replacements of the bytes, so that a slow writer or reader notices that it is out of date.
    var version: UInt32 = 0
    /// Whether some record of the key may be in the log, so that a removal needs a tombstone.
    var logged = false
    /// Whether attributes changed since the disk record was written.
    var attributesDirty = false
    /// The segment of the last durable record, when newer bytes exist in RAM only.
    var shadow: UInt64?
    var leases = 0
    var holds = 0
    /// Position in the order of use.
    var lastUse: UInt64 = 0
    /// ``lastUse`` as it was when the disk record was written; later use makes the page worth carrying over.
    var writtenUse: UInt64 = 0

    // The intrusive LRU list. Unowned because the index's dictionary owns every linked entry.
    unowned(unsafe) var previous: PageEntry?
    unowned(unsafe) var next: PageEntry?
    var list: Int?

    init(key: StoreKey, attributes: PageAttributes, length: Int, hash: UInt64?) {
        self.key = key
        self.attributes = attributes
        self.length = length
        self.hash = hash
    }

    /// Protected pages may change tier but are not dropped to make room.
    var isProtected: Bool { attributes.pinned || leases > 0 || holds > 0 }
    var isDirty: Bool { ram != nil && disk == nil }

    func isExpired(at now: UInt64) -> Bool {
        guard let expires = attributes.expires else { return false }
        return expires <= now && leases == 0
    }
}

/// Entries in the order of their last use, linked through themselves.
struct PageList {
    unowned(unsafe) var oldest: PageEntry?
    unowned(unsafe) var newest: PageEntry?

    mutating func append(_ entry: PageEntry) {
        entry.previous = newest
        entry.next = nil
        if let newest { newest.next = entry } else { oldest = entry }
        newest = entry
    }

    mutating func remove(_ entry: PageEntry) {
        if let previous = entry.previous { previous.next = entry.next } else { oldest = entry.next }
        if let next = entry.next { next.previous = entry.previous } else { newest = entry.previous }
        entry.previous = nil
        entry.next = nil
    }
}

/// The pages that expire, soonest first. Entries may be out of date; whoever pops one checks it.
struct ExpiryHeap {
    private var items: [(expires: UInt64, key: StoreKey)] = []

    var first: (expires: UInt64, key: StoreKey)? { items.first }

    mutating func push(_ expires: UInt64, _ key: StoreKey) {
        items.append((expires, key))
        var child = items.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            if items[parent].expires <= items[child].expires { break }
            items.swapAt(parent, child)
            child = parent
        }
    }

    mutating func pop() -> (expires: UInt64, key: StoreKey)? {
        guard let top = items.first else { return nil }
        let last = items.removeLast()
        if items.isEmpty { return top }
        items[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < items.count && items[child].expires < items[least].expires { least = child }
            if least == parent { return top }
            items.swapAt(parent, least)
            parent = least
        }
    }
}
