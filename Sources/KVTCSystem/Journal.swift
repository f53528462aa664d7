import CSystemd
import Glibc

/// The system's journal in its own protocol, which keeps the fields of an entry apart.
public enum Journal {
    /// Hands over an entry; waits while the journal takes nothing. False when it cannot be reached.
    /// - Parameter fields: each `NAME=value`, the names of capital letters, digits and underscores.
    public static func send(_ fields: [String]) -> Bool {
        var bytes: [UInt8] = []
        var ends: [Int] = []
        for field in fields {
            bytes.append(contentsOf: field.utf8)
            ends.append(bytes.count)
        }
        return bytes.withUnsafeMutableBytes { memory in
            var start = 0
            let parts = ends.map { end in
                defer { start = end }
                return iovec(iov_base: memory.baseAddress! + start, iov_len: end - start)
            }
            return sd_journal_sendv(parts, Int32(parts.count)) == 0
        }
    }
}
