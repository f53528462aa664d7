import CPeers
import Foundation
import KVTCSystem

/// The files of a directory, read as a whole.
final class Files {
    private let paths: [String]
    let bytes: Int

    init(_ directory: String) throws {
        let names = try FileManager.default.subpathsOfDirectory(atPath: directory)
        var (paths, bytes) = ([String](), 0)
        for name in names {
            var status = stat()
            guard stat("\(directory)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
            paths.append("\(directory)/\(name)")
            bytes += Int(status.st_size) & ~4095
        }
        (self.paths, self.bytes) = (paths, bytes)
    }

    /// Makes the next reads go to the device.
    func dropCache() {
        for path in paths {
            let file = peer_open(path, 0)
            guard file >= 0 else { continue }
            posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
            close(file)
        }
    }

    /// Reads every whole page of every file, a mebibyte at a time.
    func readAll(direct: Bool) throws {
        let size = 1 << 20
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        defer { buffer.deallocate() }
        for path in paths {
            let file = try check("open \(path)", peer_open(path, direct ? 1 : 0))
            defer { close(file) }
            while true {
                let count = Glibc.read(file, buffer, size)
                guard count >= 0 else { throw SystemError("read \(path)", code: errno) }
                if count < size { break }
            }
        }
    }
}
