import CLinux
import CXXHash
import Glibc
import Synchronization

/// XXH3-64 of the bytes, the checksum of everything the store keeps.
package func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    XXH3_64bits_withSeed(bytes.baseAddress, bytes.count, seed)
}

/// One sealed memory file mapped into the process, cut into extents.
///
/// Unchecked because of the raw mapping: it is mapped for the arena's lifetime, and extents never overlap.
final class RAMArena: @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let bytes: Int
    private let file: Int32
    private let allocator: Mutex<ExtentAllocator>

    /// Makes and maps a memory file; nil when the kernel refuses.
    init?(bytes: Int) {
        let file = clinux_storage_memfd("kvtc-pages", bytes)
        guard file >= 0 else { return nil }
        guard let base = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), base != MAP_FAILED else {
            close(file)
            return nil
        }
        self.file = file
        self.base = base
        self.bytes = bytes
        allocator = Mutex(ExtentAllocator(capacity: bytes))
    }

    deinit {
        munmap(base, bytes)
        close(file)
    }

    var used: Int { allocator.withLock { $0.used } }

    func allocate(_ length: Int) -> RAMExtent? {
        guard let range = allocator.withLock({ $0.allocate(length) }) else { return nil }
        return RAMExtent(arena: self, range: range, length: length)
    }

    fileprivate func release(_ range: Range<Int>) { allocator.withLock { $0.release(range) } }
}

/// A piece of an arena that holds one page. Whoever holds the object may read it; the room is free again when the last
/// holder lets go, so a page can be evicted while it is being read.
final class RAMExtent: Sendable {
    private let arena: RAMArena
    private let range: Range<Int>
    let length: Int

    fileprivate init(arena: RAMArena, range: Range<Int>, length: Int) {
        self.arena = arena
        self.range = range
        self.length = length
    }

    deinit { arena.release(range) }

    /// The page's bytes; written once before the extent is published in the index, only read afterwards.
    var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: arena.base + range.lowerBound, count: length)
    }
}

/// The RAM budget: a few large arenas, made when they are first needed.
final class RAMTier: Sendable {
    let budget: Int
    let arenaBytes: Int
    private let arenas = Mutex<[RAMArena]>([])

    init(budget: Int, arenaBytes: Int) {
        let unit = ExtentAllocator.granularity
        self.budget = max(0, budget) / unit * unit
        self.arenaBytes = min(max(unit, arenaBytes / unit * unit), self.budget)
    }

    /// The largest page that can ever fit.
    var maxPageBytes: Int { arenaBytes }
    /// Bytes handed out.
    var used: Int { arenas.withLock { $0.reduce(0) { $0 + $1.used } } }
    /// Bytes of all arenas.
    var capacity: Int { arenas.withLock { $0.reduce(0) { $0 + $1.bytes } } }

    /// Room for `length` bytes without evicting anything; nil when there is none.
    func allocate(_ length: Int) -> RAMExtent? {
        arenas.withLock { arenas in
            for arena in arenas {
                if let extent = arena.allocate(length) { return extent }
            }
            let bytes = min(arenaBytes, budget - arenas.reduce(0) { $0 + $1.bytes })
            guard length <= bytes, let arena = RAMArena(bytes: bytes) else { return nil }
            arenas.append(arena)
            return arena.allocate(length)
        }
    }
}
