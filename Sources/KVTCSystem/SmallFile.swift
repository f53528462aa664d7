import Glibc

/// A file of the kernel's, as those of /proc and /sys are.
package enum SmallFile {
    /// All of its text, empty when it cannot be read.
    package static func text(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Its lines, none when it cannot be read.
    package static func lines(_ path: String) -> [Substring] { text(path).split(separator: "\n") }
}
