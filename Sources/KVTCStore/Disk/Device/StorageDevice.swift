/// Every call the disk tier makes, in one place, so that tests can play a disk that fails.
///
/// A file is a small number from ``open(_:create:)``. Reads and writes may be short, as on Linux.
package protocol StorageDevice: Sendable {
    /// Makes the directory and its parents, readable by the owner only; an existing one is fine.
    func makeDirectory(_ path: String) throws(DeviceError)
    /// The names in a directory, in no order.
    func list(_ path: String) throws(DeviceError) -> [String]
    /// Opens a file for reading and writing. With `create` it must not exist yet.
    func open(_ path: String, create: Bool) throws(DeviceError) -> Int32
    /// Opens or makes the file and locks it; EWOULDBLOCK when another process holds the lock. Closing unlocks.
    func lock(_ path: String) throws(DeviceError) -> Int32
    /// The same for a directory that is there.
    func lockDirectory(_ path: String) throws(DeviceError) -> Int32
    /// Whether the path leads to this very file or directory; false when it leads to another one or nowhere.
    func isNamed(_ file: Int32, _ path: String) throws(DeviceError) -> Bool
    func close(_ file: Int32)
    func size(_ file: Int32, _ path: String) throws(DeviceError) -> Int
    func pread(_ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    func pwrite(_ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    func truncate(_ file: Int32, _ path: String, to size: Int) throws(DeviceError)
    func fdatasync(_ file: Int32, _ path: String) throws(DeviceError)
    /// Makes the directory's entries durable.
    func syncDirectory(_ path: String) throws(DeviceError)
    func rename(_ path: String, to other: String) throws(DeviceError)
    func unlink(_ path: String) throws(DeviceError)
}

extension StorageDevice {
    /// Writes all bytes, going on after short writes.
    package func writeAll(_ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int)
        throws(DeviceError)
    {
        var done = 0
        while done < bytes.count {
            let count = try pwrite(file, path, UnsafeRawBufferPointer(rebasing: bytes[done...]), at: offset + done)
            // A device that takes nothing without an error would loop for ever; call it full.
            guard count > 0 else { throw DeviceError(operation: "pwrite", path: path, code: DeviceError.noSpace) }
            done += count
        }
    }

    /// Reads until the buffer is full or the file ends; returns the bytes read.
    package func readAll(_ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = try pread(file, path, rest, at: offset + done)
            if count == 0 { break }
            done += count
        }
        return done
    }
}
