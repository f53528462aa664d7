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
