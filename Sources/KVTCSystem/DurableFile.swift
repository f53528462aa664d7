import Glibc

/// Files that are there whole or not at all, after a loss of power too.
public enum DurableFile {
    /// Writes a file of that name into a directory, which is made where it is missing, over whatever had the name.
    /// One caller at a time a directory.
    public static func write(
        _ bytes: UnsafeRawBufferPointer, named name: String, in directory: String
    ) throws(SystemError) {
        if mkdir(directory, 0o700) != 0, errno != EEXIST { throw SystemError("mkdir \(directory)", code: errno) }
        let partial = "\(directory)/.incoming-\(getpid())"
        // Left behind by a process that had the number before.
        unlink(partial)
        let raw = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard raw >= 0 else { throw SystemError("open \(partial)", code: errno) }
        let file = FileDescriptor(owning: raw)
        do throws(SystemError) {
            try write(bytes, to: file.raw)
            guard fsync(file.raw) == 0 else { throw SystemError("fsync \(partial)", code: errno) }
            guard rename(partial, "\(directory)/\(name)") == 0 else {
                throw SystemError("rename to \(name)", code: errno)
            }
        } catch {
            unlink(partial)
            throw error
        }
        let parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { throw SystemError("open \(directory)", code: errno) }
        let holder = FileDescriptor(owning: parent)
        guard fsync(holder.raw) == 0 else { throw SystemError("fsync \(directory)", code: errno) }
    }

    private static func write(_ bytes: UnsafeRawBufferPointer, to file: Int32) throws(SystemError) {
        var rest = bytes
        while !rest.isEmpty {
            let count = Glibc.write(file, rest.baseAddress!, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SystemError("write", code: errno) }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }
}
