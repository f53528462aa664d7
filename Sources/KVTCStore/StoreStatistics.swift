/// A snapshot of what the store holds and has done since it was opened. Sizes are bytes.
public struct StoreStatistics: Hashable, Sendable {
    /// Whether the disk tier works.
    public var state = StoreState.ready
    /// Why the kernel gives no memory for the rest of the RAM budget; nil while it does.
    public var ramRefusal: String?
    /// Bytes of RAM in use by pages, rounded up to the allocation unit.
    public var ramUsed = 0
    /// The RAM budget.
    public var ramBudget = 0
    /// Pages with a copy in RAM.
    public var ramPages = 0
    /// Bytes of all segment files, dead records and set-aside files included.
    public var diskUsed = 0
    /// The disk budget.
    public var diskBudget = 0
    /// Pages with a copy on disk.
    public var diskPages = 0
    /// Segment files.
    public var segments = 0
    /// Unused pages, of which the index keeps little.
    public var compactPages = 0
    /// The memory that the index takes up for all pages.
    public var indexBytes = 0
    /// All pages.
    public var pages = 0
    /// Pages not coded.
    public var rawPages = 0
    /// Coded pages.
    public var codedPages = 0
    /// Pages that are on disk only.
    public var diskOnlyPages = 0
    /// Pages in RAM that the disk does not hold yet.
    public var dirtyPages = 0
    /// The sizes of all pages before coding.
    public var rawBytes: UInt64 = 0
    /// The sizes of all pages as stored.
    public var storedBytes: UInt64 = 0
    /// Pages accepted.
    public var stored: UInt64 = 0
    /// Pages offered again.
    public var present: UInt64 = 0
    /// Pages refused for lack of room.
    public var full: UInt64 = 0
    /// Reads that found their page.
    public var hits: UInt64 = 0
    /// Reads that did not.
    public var misses: UInt64 = 0
    /// Pages or records whose checksum failed, and records skipped at start.
    public var corrupt: UInt64 = 0
    /// Pages that left RAM and stayed on disk.
    public var evictedToDisk: UInt64 = 0
    /// Pages dropped to make room.
    public var dropped: UInt64 = 0
    /// Pages that went with a segment's file, or the end of one, which another process removed.
    public var lost: UInt64 = 0
    /// Pages removed because they had expired.
    public var expired: UInt64 = 0
    /// Pages carried over from a segment that was dropped.
    public var reinserted: UInt64 = 0
    /// Device calls that failed.
    public var ioErrors: UInt64 = 0
    /// Pages found at start, in RAM or on disk.
    public var recovered: UInt64 = 0
    /// Pages found in RAM at start.
    public var recoveredFromRAM: UInt64 = 0
    /// Memory files of an earlier process that could not be used.
    public var refusedArenas: UInt64 = 0
    /// Segment files set aside as `.corrupt` at start.
    public var corruptSegments: UInt64 = 0

    /// An empty snapshot.
    public init() {}

    /// Adds what one tenant has.
    package mutating func add(_ usage: TenantUsage) {
        pages += usage.pages
        rawPages += usage.rawPages
        codedPages += usage.pages - usage.rawPages
        ramPages += usage.ramPages
        diskPages += usage.diskPages
        diskOnlyPages += usage.pages - usage.ramPages
        dirtyPages += usage.dirtyPages
        rawBytes &+= usage.rawBytes
        storedBytes &+= usage.storedBytes
        evictedToDisk += usage.evictedToDisk
        dropped += usage.dropped
    }
}
