/// Names one page of one tenant. Equal page names of different tenants are different keys.
public struct StoreKey: Hashable, Sendable, CustomStringConvertible {
    /// Whose page it is, as the server decided (peer uid).
    public let tenant: UInt32
    /// The 32 byte page name as four little-endian words, so that hashing and comparing stay cheap.
    package let words: SIMD4<UInt64>

    package init(tenant: UInt32, words: SIMD4<UInt64>) {
        self.tenant = tenant
        self.words = words
    }

    /// Makes a key from a page name; nil unless `page` holds exactly 32 bytes.
    public init?(tenant: UInt32, page: some Collection<UInt8>) {
        guard page.count == StoreKey.pageBytes else { return nil }
        var words = SIMD4<UInt64>()
        for (index, byte) in page.enumerated() { words[index / 8] |= UInt64(byte) << UInt64(index % 8 * 8) }
        self.init(tenant: tenant, words: words)
    }

    /// The length of a page name in bytes.
    public static let pageBytes = 32

    /// The 32 byte page name.
    public var page: [UInt8] {
        (0..<StoreKey.pageBytes).map { UInt8(truncatingIfNeeded: words[$0 / 8] >> UInt64($0 % 8 * 8)) }
    }

    /// The tenant and the first eight bytes of the name, for logs.
    public var description: String {
        let digits = page.prefix(8).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
        return "\(tenant):\(digits.joined())"
    }
}
