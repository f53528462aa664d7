/// SHA-256 of a profile file; all zeros in blocks that need no profile.
public struct ProfileID: Hashable, Sendable, CustomStringConvertible {
    // Words, so that reading a header allocates nothing.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// Nil unless there are 32 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 32 else { return nil }
        self = bytes.withUnsafeBytes { ProfileID($0) }
    }

    /// From the first 32 bytes.
    init(_ bytes: UnsafeRawBufferPointer) {
        func word(_ index: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self) }
        words = (word(0), word(1), word(2), word(3))
    }

    /// 32 bytes.
    public var bytes: [UInt8] { withUnsafeBytes(of: words) { [UInt8]($0) } }

    static let absent = ProfileID(bytes: [UInt8](repeating: 0, count: 32))!

    /// 64 hexadecimal digits.
    public var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// Whether all 32 bytes are the same.
    public static func == (a: ProfileID, b: ProfileID) -> Bool { a.words == b.words }

    /// Feeds the 32 bytes.
    public func hash(into hasher: inout Hasher) { withUnsafeBytes(of: words) { hasher.combine(bytes: $0) } }
}
