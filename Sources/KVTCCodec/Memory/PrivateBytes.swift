import Glibc

/// Memory of this process alone that is written once: whatever becomes of the file or arena that the bytes came from, they
/// stay what was checked.
package final class PrivateBytes: @unchecked Sendable {
    // Justified: `fill` has returned before the bytes are seen elsewhere, and the kernel refuses every write after it.
    package let bytes: UnsafeRawBufferPointer

    /// Memory of `count` bytes, at least one, that `fill` writes.
    /// - Throws: what `fill` does; `invalid` where there is not that much memory.
    package init(
        count: Int, fill: (UnsafeMutableRawBufferPointer) throws(CodecError) -> Void
    ) throws(CodecError) {
        let memory = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else {
            throw .invalid(field: "file", "no memory for \(count) bytes")
        }
        // Decoding walks through all of it for every page. Where the kernel has no large pages all is well too.
        madvise(memory, count, MADV_HUGEPAGE)
        bytes = UnsafeRawBufferPointer(start: memory, count: count)
        // All is set, so that throwing ends in deinit, which gives the memory back.
        try fill(UnsafeMutableRawBufferPointer(start: memory, count: count))
        mprotect(memory, count, PROT_READ)
    }

    /// A copy.
    package convenience init(copying source: UnsafeRawBufferPointer) throws(CodecError) {
        try self.init(count: source.count) { (target) throws(CodecError) in target.copyMemory(from: source) }
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }
}
