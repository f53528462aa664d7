import Glibc

/// A file's bytes, mapped for reading: processes that map the same file share its memory.
///
/// Who changes a mapped file in place changes what others compute with, who cuts it ends them: files are replaced by
/// renaming a new one over them.
final class MappedFile: @unchecked Sendable {
    // Justified: the mapping is read only and lives as long as the object.
    let bytes: UnsafeRawBufferPointer

    /// Nil where the file can't be opened or is empty.
    init?(path: String) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_size > 0,
            let start = mmap(nil, Int(status.st_size), PROT_READ, MAP_SHARED, descriptor, 0), start != MAP_FAILED
        else { return nil }
        bytes = UnsafeRawBufferPointer(start: start, count: Int(status.st_size))
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }
}
