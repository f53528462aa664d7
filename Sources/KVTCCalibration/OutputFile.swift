import Glibc

/// A file that appears under its name when all of it is on disk.
struct OutputFile: ~Copyable {
    private let stream: UnsafeMutablePointer<FILE>
    private let path: String
    private let partial: String

    init(path: String) throws {
        self.path = path
        partial = path + ".partial"
        guard let stream = fopen(partial, "wb") else {
            throw CalibrationError("\(path) can't be written (\(String(cString: strerror(errno))))")
        }
        self.stream = stream
    }

    borrowing func write(_ bytes: UnsafeRawBufferPointer) throws {
        guard fwrite(bytes.baseAddress, 1, bytes.count, stream) == bytes.count else { throw failure() }
    }

    /// Moves the file to its place.
    consuming func finish() throws {
        guard fflush(stream) == 0, fsync(fileno(stream)) == 0, rename(partial, path) == 0 else { throw failure() }
    }

    private borrowing func failure() -> CalibrationError {
        CalibrationError("writing \(path) failed (\(String(cString: strerror(errno)))); is there room on the disk?")
    }

    // What was renamed is no longer there under this name.
    deinit {
        fclose(stream)
        unlink(partial)
    }
}
