import CLinux
import Glibc

extension DeviceError {
    static let noSpace = ENOSPC
    static let ioError = EIO
    static let wouldBlock = EWOULDBLOCK
    static let stale = ESTALE

    /// The device takes no more, and may again later.
    var isFull: Bool { [ENOSPC, EDQUOT].contains(code) }
    /// There is no such file, or nothing that it could be in.
    var isGone: Bool { [ENOENT, ENOTDIR].contains(code) }
    /// It is the process or the machine that lacks something, not the file that is at fault.
    var isShortage: Bool { [EMFILE, ENFILE, ENOMEM].contains(code) }

    static func text(_ code: Int32) -> String { String(cString: strerror(code)) }
}

/// The kernel's files. Calls interrupted by a signal are repeated.
package struct LinuxStorageDevice: StorageDevice {
    /// Whether files are opened for reading only; then whatever would change something fails.
    private let isReadOnly: Bool

    package init(isReadOnly: Bool = false) { self.isReadOnly = isReadOnly }

    /// Repeats a call while a signal interrupts it and turns -1 into an error.
    private func check(_ operation: String, _ path: String, _ call: () -> Int) throws(DeviceError) -> Int {
        while true {
            let result = call()
            if result >= 0 { return result }
            let code = errno
            if code != EINTR { throw DeviceError(operation: operation, path: path, code: code) }
        }
    }

    package func makeDirectory(_ path: String) throws(DeviceError) {
        var parts = path.split(separator: "/", omittingEmptySubsequences: true)[...]
        var prefix = path.hasPrefix("/") ? "" : "."
        while let part = parts.popFirst() {
            prefix += "/" + part
            if mkdir(prefix, parts.isEmpty ? 0o700 : 0o755) == 0 { continue }
            let code = errno
            var status = stat()
            // An existing directory is fine even where making one is forbidden.
            if stat(prefix, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { continue }
            throw DeviceError(operation: "mkdir", path: prefix, code: code)
        }
    }

    package func list(_ path: String) throws(DeviceError) -> [String] {
        guard let directory = opendir(path) else { throw DeviceError(operation: "opendir", path: path, code: errno) }
        defer { closedir(directory) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
            errno = 0
        }
        if errno != 0 { throw DeviceError(operation: "readdir", path: path, code: errno) }
        return names
    }

    package func open(_ path: String, create: Bool) throws(DeviceError) -> Int32 {
        let access = isReadOnly ? O_RDONLY : O_RDWR
        let flags = access | O_CLOEXEC | O_NOFOLLOW | (create && !isReadOnly ? O_CREAT | O_EXCL : 0)
        do throws(DeviceError) {
            return Int32(try check("open", path) { Int(Glibc.open(path, flags, 0o600)) })
        } catch {
            // What is on a file system that takes nothing can still be read.
            guard !create, error.code == EROFS else { throw error }
            return Int32(try check("open", path) { Int(Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) })
        }
    }

    package func lock(_ path: String) throws(DeviceError) -> Int32 {
        let flags = (isReadOnly ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC | O_NOFOLLOW
        let file: Int32
        do throws(DeviceError) {
            file = Int32(try check("open", path) { Int(Glibc.open(path, flags, 0o600)) })
        } catch {
            guard error.code == EROFS else { throw error }
            file = Int32(try check("open", path) { Int(Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) })
        }
        return try locked(file, path)
    }

    package func lockDirectory(_ path: String) throws(DeviceError) -> Int32 {
        try locked(Int32(try check("open", path) { Int(Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) }), path)
    }

    /// Locks an open file, and closes it when that fails.
    private func locked(_ file: Int32, _ path: String) throws(DeviceError) -> Int32 {
        let result = clinux_storage_lock(file)
        if result == 0 { return file }
        close(file)
        throw DeviceError(operation: "flock", path: path, code: -result)
    }

    package func isNamed(_ file: Int32, _ path: String) throws(DeviceError) -> Bool {
        var (opened, named) = (stat(), stat())
        _ = try check("fstat", path) { Int(fstat(file, &opened)) }
        do throws(DeviceError) { _ = try check("stat", path) { Int(stat(path, &named)) } } catch {
            if error.isGone { return false }
            throw error
        }
        return opened.st_dev == named.st_dev && opened.st_ino == named.st_ino
    }

    package func close(_ file: Int32) { _ = Glibc.close(file) }

    package func size(_ file: Int32, _ path: String) throws(DeviceError) -> Int {
        var status = stat()
        _ = try check("fstat", path) { Int(fstat(file, &status)) }
        return Int(status.st_size)
    }

    package func pread(_ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    {
        try check("pread", path) { Glibc.pread(file, buffer.baseAddress, buffer.count, offset) }
    }

    package func pwrite(_ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    {
        try check("pwrite", path) { Glibc.pwrite(file, bytes.baseAddress, bytes.count, offset) }
    }

    package func truncate(_ file: Int32, _ path: String, to size: Int) throws(DeviceError) {
        _ = try check("ftruncate", path) { Int(ftruncate(file, size)) }
    }

    package func fdatasync(_ file: Int32, _ path: String) throws(DeviceError) {
        // Not repeated on EINTR or anything else: a second call may report success for data already lost.
        if Glibc.fdatasync(file) != 0 { throw DeviceError(operation: "fdatasync", path: path, code: errno) }
    }

    package func syncDirectory(_ path: String) throws(DeviceError) {
        let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC
        let file = Int32(try check("open", path) { Int(Glibc.open(path, flags)) })
        defer { close(file) }
        // Some file systems have no such thing for directories and say so.
        if fsync(file) != 0, ![EINVAL, ENOTSUP, ENOSYS].contains(errno) {
            throw DeviceError(operation: "fsync", path: path, code: errno)
        }
    }

    package func rename(_ path: String, to other: String) throws(DeviceError) {
        _ = try check("rename", path) { Int(Glibc.rename(path, other)) }
    }

    package func unlink(_ path: String) throws(DeviceError) {
        _ = try check("unlink", path) { Int(Glibc.unlink(path)) }
    }
}
