import CCrypto
import KVTCSystem

/// Why a file holds no fleet secret.
public enum FleetSecretError: Error, Hashable, Sendable, CustomStringConvertible {
    /// It cannot be read.
    case unreadable(path: String, reason: String)
    /// It has fewer bytes than a secret that cannot be guessed.
    case short(bytes: Int)

    /// What is wrong and what to do.
    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "the fleet secret \(path) cannot be read: \(reason)"
        case .short(let bytes):
            "the fleet secret has \(bytes) bytes and needs \(FleetSecret.fewestBytes): make one with 'openssl rand -base64 48'"
        }
    }
}

/// What the machines of a fleet know and its cluster does not: all names and keys there follow from it.
public struct FleetSecret: Sendable {
    /// Bytes of a key, a name's digest and a SHA-256.
    static let keyBytes = 32
    /// A secret of fewer bytes is refused.
    public static let fewestBytes = 32
    /// Bytes of a file beyond these are no secret.
    private static let mostBytes = 65_536

    /// What a key is for.
    enum Purpose: String, CaseIterable {
        case pageName = "page name"
        case pageValue = "page value"
        case profileName = "profile name"
        case profileValue = "profile value"
    }

    private let keys: [[UInt8]]

    /// A secret of any bytes, of which a last line feed is left out as editors add one.
    public init(_ bytes: [UInt8]) throws(FleetSecretError) {
        let secret = bytes.last == 0x0A ? Array(bytes.dropLast()) : bytes
        guard secret.count >= Self.fewestBytes else { throw .short(bytes: secret.count) }
        // HKDF (RFC 5869) with SHA-256. One block is a key.
        let extracted = KeyedHash.digest(key: Array("kvtc-fleet-v1".utf8), secret)
        keys = Purpose.allCases.map { KeyedHash.digest(key: extracted, Array($0.rawValue.utf8) + [1]) }
    }

    /// The secret in a file.
    public init(file path: String) throws(FleetSecretError) {
        let bytes: [UInt8]
        do throws(SystemError) { bytes = try SmallFile.bytes(path, atMost: Self.mostBytes) } catch {
            throw .unreadable(path: path, reason: "\(error)")
        }
        try self.init(bytes)
    }

    func key(_ purpose: Purpose) -> [UInt8] { keys[Purpose.allCases.firstIndex(of: purpose)!] }
}
