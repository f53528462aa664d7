import Glibc

/// A regular file that is read piece by piece and never mapped: cut or overwritten meanwhile, it gives an error or other
/// bytes, where a mapping would end the process by SIGBUS or change what was checked already.
package final class InputFile: Sendable {
    /// What tells one content of a path from another, as well as a file system can.
    private struct Version: Equatable {
        let device, inode: UInt64
        let size: Int
        let modified, changed: [Int]

        init(_ status: stat) {
            (device, inode, size) = (UInt64(status.st_dev), UInt64(status.st_ino), Int(status.st_size))
            modified = [status.st_mtim.tv_sec, status.st_mtim.tv_nsec]
            changed = [status.st_ctim.tv_sec, status.st_ctim.tv_nsec]
        }
    }

    private let descriptor: Int32
    private let version: Version
    /// Bytes in the file when it was opened.
    package var byteCount: Int { version.size }

    /// - Throws: `invalid` with the reason where there is no regular file that may be read.
    package init(path: String) throws(CodecError) {
        // O_NONBLOCK: a FIFO without a writer must be refused, not waited for.
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { throw InputFile.unreadable(String(cString: strerror(errno))) }
        var status = stat()
        let isKnown = fstat(descriptor, &status) == 0
        version = Version(status)
        // From here on all is set, so that throwing ends in deinit, which closes.
        guard isKnown, status.st_mode & S_IFMT == S_IFREG else {
            throw InputFile.unreadable(status.st_mode & S_IFMT == S_IFDIR ? "it is a directory" : "not a regular file")
        }
        guard byteCount > 0 else { throw InputFile.unreadable("the file is empty") }
    }

    deinit { close(descriptor) }

    /// Fills the buffer with the bytes from `offset` on.
    /// - Throws: `invalid` where the device fails or the file has become shorter.
    package func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(CodecError) {
        var done = 0
        while done < buffer.count {
            let count = pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw InputFile.unreadable(String(cString: strerror(errno))) }
            guard count > 0 else { throw InputFile.unreadable("it became shorter while it was read") }
            done += count
        }
    }

    /// Some bytes of the file.
    package func bytes(_ range: Range<Int>) throws(CodecError) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: range.count)
        do { try result.withUnsafeMutableBytes { try read(at: range.lowerBound, into: $0) } } catch {
            throw error as? CodecError ?? InputFile.unreadable("\(error)")
        }
        return result
    }

    /// - Throws: `invalid` where the file was written to since it was opened: what was read may be parts of two contents.
    package func checkUnchanged() throws(CodecError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0, Version(status) == version else {
            throw InputFile.unreadable("it changed while it was read; try again when it is complete")
        }
    }

    private static func unreadable(_ reason: String) -> CodecError {
        .invalid(field: "file", "can't be read: \(reason)")
    }
}
