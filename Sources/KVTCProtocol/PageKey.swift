/// The 32 bytes that name a page by content; the worker computes them and the daemon only compares them.
public struct PageKey: Hashable, Sendable, CustomStringConvertible {
    /// The number of bytes of a key.
    public static let byteCount = 32

    // Four words instead of an array: keys live by the million in hash tables.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// The key with the given bytes, or nil when there are not exactly 32 of them.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == PageKey.byteCount else { return nil }
        var parts = [UInt64](repeating: 0, count: 4)
        for (index, byte) in bytes.enumerated() { parts[index / 8] |= UInt64(byte) << UInt64(index % 8 * 8) }
        words = (parts[0], parts[1], parts[2], parts[3])
    }

    /// The key as four little-endian words.
    package var vector: SIMD4<UInt64> { SIMD4(words.0, words.1, words.2, words.3) }

    package init(vector: SIMD4<UInt64>) { words = (vector.x, vector.y, vector.z, vector.w) }

    static let zero = PageKey(words: (0, 0, 0, 0))

    init(words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }

    /// The key as 32 bytes, in wire order.
    public var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(PageKey.byteCount)
        for word in [words.0, words.1, words.2, words.3] {
            for shift in stride(from: 0, to: 64, by: 8) { result.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        return result
    }

    /// The key in hexadecimal, as it appears in logs.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// Two keys are the same page when all 32 bytes agree.
    public static func == (a: PageKey, b: PageKey) -> Bool {
        a.words.0 == b.words.0 && a.words.1 == b.words.1 && a.words.2 == b.words.2 && a.words.3 == b.words.3
    }

    /// Feeds all 32 bytes: a client chooses its keys, so hashing fewer would invite collisions.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
        hasher.combine(words.2)
        hasher.combine(words.3)
    }

    /// A key as it lies on the wire, which has the least significant byte of each word first.
    init(wire: SIMD4<UInt64>) {
        words = (
            UInt64(littleEndian: wire.x), UInt64(littleEndian: wire.y), UInt64(littleEndian: wire.z),
            UInt64(littleEndian: wire.w)
        )
    }

    /// The key as it lies on the wire.
    var wire: SIMD4<UInt64> {
        SIMD4(words.0.littleEndian, words.1.littleEndian, words.2.littleEndian, words.3.littleEndian)
    }
}
