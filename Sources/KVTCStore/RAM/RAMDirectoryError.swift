/// Why a memory file is not used.
package enum RAMDirectoryError: Error, Hashable, Sendable, CustomStringConvertible {
    case notAnArena
    case truncated
    case badChecksum
    case newerFormat(found: UInt32, supported: UInt32)
    case inconsistent
    case notSealed
    case system(operation: String, code: Int32)

    /// The reason in words, fit for a log.
    package var description: String {
        switch self {
        case .notAnArena: "it does not begin as an arena does"
        case .truncated: "it is too short"
        case .badChecksum: "the checksum of its header is wrong"
        case .newerFormat(let found, let supported): "it has format \(found), this version reads up to \(supported)"
        case .inconsistent: "its header contradicts itself or the file's size"
        case .notSealed: "it is not sealed against shrinking and growing"
        case .system(let operation, let code): "\(operation): \(DeviceError.text(code))"
        }
    }
}
