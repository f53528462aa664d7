import CLinux
import Glibc

/// The compact entries of all pages, by number. There may be millions. In chunks, so that it never moves them to grow;
/// a free list, linked through the free ones, gives numbers back in O(1).
struct CompactEntries {
    /// Entries that lie together: some 10 MB, so that most of them get large pages of memory.
    private static let chunk = 1 << 17

    private var chunks: [ContiguousArray<CompactEntry>] = []
    private var free = PageList.none
    /// Entries, free ones too.
    private(set) var count: UInt32 = 0

    /// Memory taken up.
    var bytes: Int { Int(count) * MemoryLayout<CompactEntry>.stride }

    subscript(_ number: UInt32) -> CompactEntry {
        get { chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
        _modify { yield &chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
    }

    /// Takes an entry in; returns its number.
    mutating func insert(_ entry: CompactEntry) -> UInt32 {
        if free != PageList.none {
            let number = free
            free = self[number].next
            self[number] = entry
            return number
        }
        if Int(count) % Self.chunk == 0 {
            var chunk = ContiguousArray<CompactEntry>()
            chunk.reserveCapacity(Self.chunk)
            chunk.withUnsafeMutableBufferPointer { Self.preferLargePages($0.baseAddress!) }
            chunks.append(chunk)
        }
        chunks[chunks.count - 1].append(entry)
        count += 1
        return count - 1
    }

    mutating func remove(_ number: UInt32) {
        self[number].setFree(next: free)
        free = number
    }

    mutating func append(_ number: UInt32, to list: inout PageList) {
        self[number].previous = list.newest
        self[number].next = PageList.none
        if list.newest != PageList.none { self[list.newest].next = number } else { list.oldest = number }
        list.newest = number
    }

    /// Puts an entry on the older side of one that is in the list.
    mutating func insert(_ number: UInt32, before other: UInt32, in list: inout PageList) {
        let previous = self[other].previous
        self[number].previous = previous
        self[number].next = other
        self[other].previous = number
        if previous != PageList.none { self[previous].next = number } else { list.oldest = number }
    }

    mutating func unlink(_ number: UInt32, from list: inout PageList) {
        let (previous, next) = (self[number].previous, self[number].next)
        if previous != PageList.none { self[previous].next = next } else { list.oldest = next }
        if next != PageList.none { self[next].previous = previous } else { list.newest = previous }
    }

    /// Asks for the memory of an entry.
    func prefetch(_ number: UInt32) {
        chunks[Int(number) / Self.chunk].withUnsafeBufferPointer {
            let entry = UnsafeRawPointer($0.baseAddress! + Int(number) % Self.chunk)
            clinux_prefetch(entry)
            clinux_prefetch(entry + MemoryLayout<CompactEntry>.size - 1)
        }
    }

    /// A page is looked at here and there: with large pages of memory its address costs no look into memory of its own.
    /// All is well without them.
    private static func preferLargePages(_ start: UnsafeMutablePointer<CompactEntry>) {
        let page: UInt = 4096
        let aligned = (UInt(bitPattern: start) + page - 1) / page * page
        let bytes = chunk * MemoryLayout<CompactEntry>.stride - Int(page)
        madvise(UnsafeMutableRawPointer(bitPattern: aligned), bytes, MADV_HUGEPAGE)
    }
}
