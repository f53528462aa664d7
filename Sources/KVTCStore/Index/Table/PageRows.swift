import CLinux
import Glibc

/// The rows of a ``PageTable``, by number. There may be millions.
struct PageRows {
    /// Rows that lie together: some 10 MB, so that most of them get large pages of memory.
    private static let chunk = 1 << 17

    private var chunks: [ContiguousArray<PageRow>] = []
    private var free = PageList.none
    /// Rows, free ones too.
    private(set) var count: UInt32 = 0

    /// Memory taken up.
    var bytes: Int { Int(count) * MemoryLayout<PageRow>.stride }

    subscript(_ number: UInt32) -> PageRow {
        get { chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
        _modify { yield &chunks[Int(number) / Self.chunk][Int(number) % Self.chunk] }
    }

    /// Takes a row in; returns its number.
    mutating func insert(_ row: PageRow) -> UInt32 {
        if free != PageList.none {
            let number = free
            free = self[number].next
            self[number] = row
            return number
        }
        if Int(count) % Self.chunk == 0 {
            var chunk = ContiguousArray<PageRow>()
            chunk.reserveCapacity(Self.chunk)
            chunk.withUnsafeMutableBufferPointer { Self.preferLargePages($0.baseAddress!) }
            chunks.append(chunk)
        }
        chunks[chunks.count - 1].append(row)
        count += 1
        return count - 1
    }

    mutating func remove(_ number: UInt32) {
        self[number].setFree(next: free)
        free = number
    }

    /// The numbers of the rows for which `isWanted` holds. Goes through all of them.
    func numbers(where isWanted: (PageRow) -> Bool) -> [UInt32] { (0..<count).filter { isWanted(self[$0]) } }

    mutating func append(_ number: UInt32, to list: inout PageList) {
        self[number].previous = list.newest
        self[number].next = PageList.none
        if list.newest != PageList.none { self[list.newest].next = number } else { list.oldest = number }
        list.newest = number
    }

    /// Puts a row on the older side of one that is in the list.
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

    /// Asks for the memory of a row.
    func prefetch(_ number: UInt32) {
        chunks[Int(number) / Self.chunk].withUnsafeBufferPointer {
            let row = UnsafeRawPointer($0.baseAddress! + Int(number) % Self.chunk)
            clinux_prefetch(row)
            clinux_prefetch(row + MemoryLayout<PageRow>.size - 1)
        }
    }

    /// A page is looked at here and there: with large pages of memory its address costs no look into memory of its own. All is
    /// well without them.
    private static func preferLargePages(_ start: UnsafeMutablePointer<PageRow>) {
        let page: UInt = 4096
        let aligned = (UInt(bitPattern: start) + page - 1) / page * page
        let bytes = chunk * MemoryLayout<PageRow>.stride - Int(page)
        madvise(UnsafeMutableRawPointer(bitPattern: aligned), bytes, MADV_HUGEPAGE)
    }
}
