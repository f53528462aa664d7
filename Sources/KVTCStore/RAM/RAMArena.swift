import CLinux
import CXXHash
import Glibc
import Synchronization

/// XXH3-64 of the bytes, the checksum of everything the store keeps.
package func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    xxh3(bytes.baseAddress, bytes.count, seed)
}

/// One sealed memory file mapped into the process: a header, a directory of slots, and data cut into extents.
///
/// The directory is right after every single store, so that another process that gets the file after this one was
/// killed finds every page that was published and none that was not: a slot becomes valid by its last store, and is
/// made invalid before its extent can get other bytes.
///
/// Unchecked because of the raw mapping: it is mapped for the arena's lifetime, extents never overlap, and slots are
/// written under the store's index lock only.
final class RAMArena: @unchecked Sendable {
    /// Unique, and fit for a name in the service manager's descriptor store.
    let name: String
    let file: Int32
    private let base: UnsafeMutableRawPointer
    private let header: RAMHeader
    private let allocator: Mutex<ExtentAllocator>
    private let slots: Mutex<SlotAllocator>
    /// Called after every store to the directory; nil but in tests, which look at the memory then.
    private let step: (@Sendable () -> Void)?

    /// Slots in the order of first use; freed ones are used again before a new one is.
    private struct SlotAllocator {
        var free: [Int]
        var used: Int

        mutating func take() -> Int {
            if let slot = free.popLast() { return slot }
            used += 1
            return used - 1
        }
    }

    /// Bytes for pages.
    var bytes: Int { header.dataBytes }

    /// Makes and maps a memory file; nil when the kernel refuses.
    init?(bytes: Int, created: UInt64, mark: TimeMark, step: (@Sendable () -> Void)?) {
        var generator = SystemRandomNumberGenerator()
        header = RAMHeader(dataBytes: bytes, salt: generator.next(), created: created)
        name = "kvtc-ram-" + String(generator.next(), radix: 16)
        let file = clinux_storage_memfd("kvtc-pages", header.fileBytes)
        guard file >= 0 else { return nil }
        guard let base = Self.map(file, header.fileBytes) else {
            close(file)
            return nil
        }
        self.file = file
        self.base = base
        self.step = step
        allocator = Mutex(ExtentAllocator(capacity: bytes))
        slots = Mutex(SlotAllocator(free: [], used: 0))
        header.write(to: UnsafeMutableRawBufferPointer(start: base, count: RAMHeader.bytes))
        mark.write(to: UnsafeMutableRawBufferPointer(start: base + RAMHeader.markOffset, count: TimeMark.bytes))
    }

    private static func map(_ file: Int32, _ bytes: Int) -> UnsafeMutableRawPointer? {
        guard let base = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), base != MAP_FAILED else {
            return nil
        }
        // Fewer faults and misses of the address cache where the kernel has large pages; without them all is well too.
        madvise(base, bytes, MADV_HUGEPAGE)
        return base
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

    private static func read(_ file: Int32) throws(RAMDirectoryError) -> RAMDirectory {
        var status = stat()
        // Memory that can shrink kills its reader.
        guard clinux_is_sealed_arena(file) == 1 else { throw .notSealed }
        guard fstat(file, &status) == 0 else { throw .system(operation: "fstat", code: errno) }
        return try RAMDirectory(fileBytes: Int(status.st_size)) { (target, offset) throws(RAMDirectoryError) in
            // By reading and not through the mapping: that would take memory for the holes.
            var done = 0
            while done < target.count {
                let count = pread(file, target.baseAddress! + done, target.count - done, offset + done)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw .system(operation: "pread", code: count < 0 ? errno : EIO) }
                done += count
            }
        }
    }

    private init(
        _ file: Int32, name: String, _ directory: RAMDirectory, step: (@Sendable () -> Void)?
    ) throws(RAMDirectoryError) {
        header = directory.header
        guard let base = Self.map(file, header.fileBytes) else { throw .system(operation: "mmap", code: errno) }
        self.name = name
        self.file = file
        self.base = base
        self.step = step
        allocator = Mutex(ExtentAllocator(capacity: header.dataBytes))
        slots = Mutex(SlotAllocator(free: [], used: directory.usedSlots))
    }

    deinit {
        munmap(base, header.fileBytes)
        close(file)
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

    /// Zeroes room that no page has, and gives whole pages of memory back.
    private func discard(_ range: Range<Int>) {
        // The data begins at a page boundary.
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let (begin, end) = ((range.lowerBound + page - 1) / page * page, range.upperBound / page * page)
        guard begin < end, madvise(data(begin), end - begin, MADV_REMOVE) == 0 else { return wipe(range) }
        wipe(range.lowerBound..<begin)
        wipe(end..<range.upperBound)
    }

    /// Zeroes room that no page has any more, so that nothing of one tenant's can be where another's will be.
    fileprivate func wipe(_ range: Range<Int>) { memset(data(range.lowerBound), 0, range.count) }

    var used: Int { allocator.withLock { $0.used } }

    func allocate(_ length: Int) -> RAMExtent? {
        guard let range = allocator.withLock({ $0.allocate(length) }) else { return nil }
        return RAMExtent(self, range, length: length, slot: nil)
    }

    fileprivate func release(_ range: Range<Int>) { allocator.withLock { $0.release(range) } }

    fileprivate func data(_ offset: Int) -> UnsafeMutableRawPointer { base + header.dataOffset + offset }

    // MARK: - Slots, under the index lock

    private func slot(_ index: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base + RAMHeader.bytes + index * RAMSlot.bytes, count: RAMSlot.bytes)
    }

    private func clear(_ index: Int) {
        clinux_storage_publish(slot(index).baseAddress!, 0)
        step?()
    }

    fileprivate func write(_ record: RAMRecord) -> Int {
        let index = slots.withLock { $0.take() }
        let target = slot(index)
        RAMSlot.write(record, to: target)
        step?()
        let word = RAMSlot.commitWord(UnsafeRawBufferPointer(target), index: index, salt: header.salt)
        clinux_storage_publish(target.baseAddress!, word)
        step?()
        return index
    }

    fileprivate func free(_ index: Int) {
        clear(index)
        slots.withLock { $0.free.append(index) }
    }

    func noteUse(_ index: Int, _ use: UInt64) {
        clinux_storage_publish(slot(index).baseAddress! + RAMSlot.lastUseOffset, use)
    }

    /// What the slot of a page says of its last use.
    func lastUse(_ index: Int) -> UInt64 { RAMSlot.lastUse(UnsafeRawBufferPointer(slot(index))) }

    /// What the slot of a page says of its bytes; a slot that has gone bad makes them bad too.
    func hash(_ index: Int) -> UInt64 { RAMSlot.hash(UnsafeRawBufferPointer(slot(index))) }

    /// What the slot of a page says of the seconds that it lives after a use.
    func ttl(_ index: Int) -> UInt32 { RAMSlot.ttl(UnsafeRawBufferPointer(slot(index))) }

    fileprivate func wrote() { step?() }
}

/// A piece of an arena that holds one page. A holder of the object may read it; the room is free again when the last
/// holder lets go, so a page can be evicted while it is being read.
///
/// Unchecked because `slot` and `isResting` are read and written under the store's index lock only.
final class RAMExtent: @unchecked Sendable {
    let arena: RAMArena
    let length: Int
    private let range: Range<Int>
    private var slot: Int?
    private var isResting = false

    fileprivate init(_ arena: RAMArena, _ range: Range<Int>, length: Int, slot: Int?) {
        self.arena = arena
        self.length = length
        self.range = range
        self.slot = slot
    }

    /// The extent of a page that rested.
    convenience init(_ arena: RAMArena, place: UInt32, length: Int, slot: UInt32) {
        let begin = Int(place) * ExtentAllocator.granularity
        self.init(arena, begin..<begin + ExtentAllocator.rounded(length)!, length: length, slot: Int(slot))
    }

    /// Gives what is needed to make this object again, and leaves the room to the page. For the last holder, of a page that
    /// is published.
    func rest() -> (place: UInt32, slot: UInt32) {
        isResting = true
        return (UInt32(range.lowerBound / ExtentAllocator.granularity), UInt32(slot!))
    }

    deinit {
        if isResting { return }
        // A page that still has a slot is left as it is: a process that ends must not take its pages along.
        if slot == nil { arena.wipe(range) }
        arena.release(range)
    }

    /// The page's bytes; written once before the extent is published, only read afterwards.
    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: arena.data(range.lowerBound), count: length)
    }

    /// Puts the page's bytes in place.
    func fill(_ source: UnsafeRawBufferPointer) {
        precondition(source.count == length)
        fill(by: { $0.copyMemory(from: source) })
    }

    /// Lets the caller put the page's bytes in place, so that they need not be elsewhere before.
    func fill<Value, Failure: Error>(
        by body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Value
    ) throws(Failure) -> Value {
        defer { arena.wrote() }
        return try body(UnsafeMutableRawBufferPointer(start: arena.data(range.lowerBound), count: length))
    }

    /// Makes the page one that outlives the process, or changes what is said of it. Under the index lock.
    func publish(_ record: RAMRecord) {
        var record = record
        record.offset = range.lowerBound
        let before = slot
        slot = arena.write(record)
        if let before { arena.free(before) }
    }

    /// Takes that back: after a kill the page is not found here. Under the index lock.
    func retract() {
        guard let slot else { return }
        arena.free(slot)
        self.slot = nil
    }

    /// Notes when the page was used last. Under the index lock.
    func noteUse(_ use: UInt64) { if let slot { arena.noteUse(slot, use) } }
}
