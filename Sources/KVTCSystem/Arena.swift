import CLinux
import Glibc
import Synchronization

/// Shared memory of a fixed size. The other side may write at any time, so bytes are copied out once and judged in
/// private memory; nothing is read twice.
public final class Arena: @unchecked Sendable {
    // Justified: the mapping is plain memory that is valid for the object's whole life; races on its bytes are the other side's
    // doing, and answered by copying before judging.
    /// -1 once it is closed.
    private let descriptor: Atomic<Int32>
    private let base: UnsafeMutableRawPointer
    /// The size in bytes.
    public let byteCount: Int
    /// Whether the memory is taken back from the other side in the end.
    private let isTakenBack: Atomic<Bool>
    /// Goes away after the memory.
    private let charge: (any AnyObject & Sendable)?

    /// New memory, sealed against shrinking, growing and further seals. Its end takes the memory back from everybody, also
    /// from who keeps the descriptor; only then `charge` is let go.
    public convenience init(
        byteCount: Int, name: String = "kvtc-arena", charge: (any AnyObject & Sendable)? = nil
    ) throws(SystemError) {
        guard byteCount > 0 else { throw SystemError("arena of \(byteCount) bytes", code: EINVAL) }
        let made = FileDescriptor(owning: try SystemError.check("memfd", clinux_storage_memfd(name, byteCount)))
        try self.init(owning: made, byteCount: byteCount, isOwn: true, charge: charge)
    }

    /// Memory that the other side made: its seals and size are checked before it is mapped, because memory that can
    /// shrink kills its reader.
    public convenience init(owning descriptor: consuming FileDescriptor, byteCount: Int) throws(SystemError) {
        try self.init(owning: descriptor, byteCount: byteCount, isOwn: false, charge: nil)
    }

    private init(
        owning descriptor: consuming FileDescriptor, byteCount: Int, isOwn: Bool, charge: (any AnyObject & Sendable)?
    ) throws(SystemError) {
        let sealed = try SystemError.check("F_GET_SEALS", clinux_is_sealed_arena(descriptor.raw))
        var info = stat()
        guard sealed == 1, byteCount > 0, fstat(descriptor.raw, &info) == 0, info.st_size >= byteCount else {
            throw SystemError("arena without seals or of another size", code: EPERM)
        }
        let mapped = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.raw, 0)
        guard let mapped, mapped != MAP_FAILED else { throw SystemError("mmap", code: errno) }
        // Fewer faults and misses of the address cache where the kernel has large pages; without them all is well too.
        madvise(mapped, byteCount, MADV_HUGEPAGE)
        base = mapped
        self.byteCount = byteCount
        isTakenBack = Atomic(isOwn)
        self.charge = charge
        self.descriptor = Atomic(descriptor.release())
    }

    deinit {
        // Else all that was ever written here would be held by any copy of the descriptor, and charged to this process. What
        // the other side writes from now on is its own.
        if isTakenBack.load(ordering: .acquiring) { madvise(base, byteCount, MADV_REMOVE) }
        munmap(base, byteCount)
        closeDescriptor()
    }

    /// Leaves the memory to the other side, which may be reading it: for a process that ends.
    public func leave() { isTakenBack.store(false, ordering: .releasing) }

    /// The descriptor to send along; it must not outlive the arena.
    public var rawDescriptor: Int32 { descriptor.load(ordering: .acquiring) }

    /// Closes the descriptor: the memory is mapped and does without.
    public func closeDescriptor() {
        let raw = descriptor.exchange(-1, ordering: .acquiringAndReleasing)
        if raw >= 0 { close(raw) }
    }

    /// Whether the bytes from `offset` on lie inside, with sums that cannot overflow.
    public func contains(offset: UInt64, length: UInt64) -> Bool {
        let (end, overflow) = offset.addingReportingOverflow(length)
        return !overflow && end <= UInt64(byteCount)
    }

    /// A private copy of some bytes; nil when they are not all inside.
    public func copy(offset: UInt64, length: UInt64) -> [UInt8]? {
        guard contains(offset: offset, length: length) else { return nil }
        return [UInt8](unsafeUninitializedCapacity: Int(length)) { buffer, filled in
            if length > 0 { memcpy(buffer.baseAddress!, base + Int(offset), Int(length)) }
            filled = Int(length)
        }
    }

    /// Lets `body` write some bytes in place; nil when they are not all inside.
    public func withWritable<R, E: Error>(
        offset: UInt64, length: UInt64, _ body: (UnsafeMutableRawBufferPointer) throws(E) -> R
    ) throws(E) -> R? {
        guard contains(offset: offset, length: length) else { return nil }
        return try body(UnsafeMutableRawBufferPointer(start: base + Int(offset), count: Int(length)))
    }

    /// Copies bytes in; false when they do not fit there.
    public func write(_ bytes: UnsafeRawBufferPointer, offset: UInt64) -> Bool {
        withWritable(offset: offset, length: UInt64(bytes.count)) { $0.copyMemory(from: bytes) } != nil
    }
}
