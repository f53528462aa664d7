import CLinux
import Glibc

// The mapping is plain memory that is valid for the object's whole life; races on its bytes are the other side's
// doing and are answered by copying before judging, hence unchecked.
/// Shared memory of a fixed size. The other side may write at any time, so bytes are copied out once and judged in
/// private memory; nothing is read twice.
public final class Arena: @unchecked Sendable {
    private let descriptor: FileDescriptor
    private let base: UnsafeMutableRawPointer
    /// The size in bytes.
    public let byteCount: Int

    /// New memory, sealed against shrinking, growing and further seals.
    public convenience init(byteCount: Int, name: String = "kvtc-arena") throws(SystemError) {
        guard byteCount > 0 else { throw SystemError("arena of \(byteCount) bytes", code: EINVAL) }
        let made = clinux_storage_memfd(name, byteCount)
        try self.init(owning: FileDescriptor(owning: try SystemError.check("memfd", made)), byteCount: byteCount)
    }

    /// Memory that the other side made: its seals and size are checked before it is mapped, because memory that can
    /// shrink kills its reader.
    public init(owning descriptor: consuming FileDescriptor, byteCount: Int) throws(SystemError) {
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
        self.descriptor = descriptor
    }

    deinit { munmap(base, byteCount) }

    /// The descriptor to send along; it must not outlive the arena.
    public var rawDescriptor: Int32 { descriptor.raw }

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
