import CLinux
import CXXHash
import Glibc
import KVTCSystem

/// One sealed memory file mapped into the process: a header, a directory of slots, and data cut into extents.
///
/// The directory is right after every single store, so that another process that gets the file after this one was
/// killed finds every page that was published and none that was not: a slot becomes valid by its last store, and is
/// made invalid before its extent can get other bytes.
final class RAMArena: @unchecked Sendable {
    // Justified: the raw mapping lasts as long as the arena, extents never overlap, and slots are written under the store's index
    // lock only.
    /// Unique, and fit for a name in the service manager's descriptor store.
    let name: String
    let file: Int32
    private let base: UnsafeMutableRawPointer
    private let header: RAMHeader
    let allocator: RankedMutex<ExtentAllocator>
    let slots: RankedMutex<SlotAllocator>
    /// Called after every store to the directory; nil but in tests, which look at the memory then.
    private let step: (@Sendable () -> Void)?

    /// Bytes for pages.
    var bytes: Int { header.dataBytes }

    /// Makes and maps a memory file; throws what the kernel refuses.
    init(
        bytes: Int, created: UInt64, mark: TimeMark, step: (@Sendable () -> Void)?
    ) throws(RAMDirectoryError) {
        var generator = SystemRandomNumberGenerator()
        header = RAMHeader(dataBytes: bytes, salt: generator.next(), created: created)
        name = "kvtc-ram-" + String(generator.next(), radix: 16)
        let file = clinux_storage_memfd("kvtc-pages", header.fileBytes)
        guard file >= 0 else { throw .system(operation: "memfd", code: -file) }
        guard let base = Self.map(file, header.fileBytes) else {
            let code = errno
            close(file)
            throw .system(operation: "mmap", code: code)
        }
        self.file = file
        self.base = base
        self.step = step
        allocator = RankedMutex(ExtentAllocator(capacity: bytes), rank: .room)
        slots = RankedMutex(SlotAllocator(free: [], used: 0), rank: .slots)
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

    static func read(_ file: Int32) throws(RAMDirectoryError) -> RAMDirectory {
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

    /// The arena that an earlier process left in a file with that directory; the caller sets its slots and extents right.
    init(
        _ file: Int32, name: String, _ directory: RAMDirectory, step: (@Sendable () -> Void)?
    ) throws(RAMDirectoryError) {
        header = directory.header
        guard let base = Self.map(file, header.fileBytes) else { throw .system(operation: "mmap", code: errno) }
        self.name = name
        self.file = file
        self.base = base
        self.step = step
        allocator = RankedMutex(ExtentAllocator(capacity: header.dataBytes), rank: .room)
        slots = RankedMutex(SlotAllocator(free: [], used: directory.usedSlots), rank: .slots)
    }

    deinit {
        munmap(base, header.fileBytes)
        close(file)
    }

    /// Zeroes room that no page has, and gives whole pages of memory back.
    func discard(_ range: Range<Int>) {
        // The data begins at a page boundary.
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let (begin, end) = ((range.lowerBound + page - 1) / page * page, range.upperBound / page * page)
        guard begin < end, madvise(data(begin), end - begin, MADV_REMOVE) == 0 else { return wipe(range) }
        wipe(range.lowerBound..<begin)
        wipe(end..<range.upperBound)
    }

    /// Zeroes room that no page has any more, so that nothing of one tenant's can be where another's will be.
    func wipe(_ range: Range<Int>) { memset(data(range.lowerBound), 0, range.count) }

    var used: Int { allocator.withLock { $0.used } }

    func release(_ range: Range<Int>) { allocator.withLock { $0.release(range) } }

    func data(_ offset: Int) -> UnsafeMutableRawPointer { base + header.dataOffset + offset }

    // MARK: - Slots, under the index lock

    private func slot(_ index: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base + RAMHeader.bytes + index * RAMSlot.bytes, count: RAMSlot.bytes)
    }

    func clear(_ index: Int) {
        clinux_storage_publish(slot(index).baseAddress!, 0)
        step?()
    }

    func write(_ record: RAMRecord) -> Int {
        let index = slots.withLock { $0.take() }
        let target = slot(index)
        RAMSlot.write(record, to: target)
        step?()
        let word = RAMSlot.commitWord(UnsafeRawBufferPointer(target), index: index, salt: header.salt)
        clinux_storage_publish(target.baseAddress!, word)
        step?()
        return index
    }

    func free(_ index: Int) {
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

    func wrote() { step?() }
}
