import Glibc

// How room in an arena becomes an extent: for a page that comes, or for those that an earlier process left.
extension RAMArena {
    func allocate(_ length: Int) -> RAMExtent? {
        guard let range = allocator.withLock({ $0.allocate(length) }) else { return nil }
        return RAMExtent(self, range, length: length, slot: nil)
    }

    /// Takes over a file that an earlier process filled, and gives the pages in it. The file is closed when it is not an
    /// arena that can be used.
    static func adopt(
        _ file: Int32, name: String, step: (@Sendable () -> Void)?
    ) throws(RAMDirectoryError) -> (arena: RAMArena, pages: [(RAMRecord, RAMExtent)], directory: RAMDirectory) {
        do throws(RAMDirectoryError) {
            let directory = try read(file)
            let arena = try RAMArena(file, name: name, directory, step: step)
            return (arena, arena.takeOver(directory), directory)
        } catch {
            close(file)
            throw error
        }
    }

    /// Makes extents of the records that agree with each other; of two that do not, the later one is right. Every other
    /// slot is free afterwards.
    private func takeOver(_ directory: RAMDirectory) -> [(RAMRecord, RAMExtent)] {
        var pages: [(RAMRecord, RAMExtent)] = []
        var kept: Set<Int> = []
        for record in directory.records.sorted(by: { $0.sequence > $1.sequence }) {
            let size = ExtentAllocator.rounded(record.length)!
            let range = record.offset..<record.offset + size
            guard allocator.withLock({ $0.take(range) }) else { continue }
            kept.insert(record.slot)
            pages.append((record, RAMExtent(self, range, length: record.length, slot: record.slot)))
        }
        let free = (0..<directory.usedSlots).filter { !kept.contains($0) }
        for slot in free { clear(slot) }
        slots.withLock { $0.free = free.reversed() }
        for range in allocator.withLock({ $0.freeRanges }) { discard(range) }
        return pages
    }
}
