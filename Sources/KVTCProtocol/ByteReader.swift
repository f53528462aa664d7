/// Reads a message body field by field; every length is checked against what is left before it is used.
struct ByteReader: Sendable {
    private let bytes: [UInt8]
    private var position = 0

    /// Starts at the first byte of a body.
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// How many bytes are not read yet.
    var remaining: Int { bytes.count - position }

    private mutating func take(_ count: Int, _ field: String) throws(WireError) -> Int {
        guard count <= remaining else {
            throw WireError(.truncated, field: field, "\(count) bytes expected, \(remaining) left")
        }
        defer { position += count }
        return position
    }

    /// The next bytes as an integer, least significant one first.
    mutating func readInteger<T: FixedWidthInteger>(_ field: String) throws(WireError) -> T {
        let start = try take(MemoryLayout<T>.size, field)
        return bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: T.self)) }
    }

    /// The next 32 bytes as a key.
    mutating func readKey(_ field: String) throws(WireError) -> PageKey {
        let start = try take(PageKey.byteCount, field)
        return bytes.withUnsafeBytes { PageKey(wire: $0.loadUnaligned(fromByteOffset: start, as: SIMD4.self)) }
    }

    /// Keys, one behind another; the caller has checked that there are so many.
    mutating func readKeys(_ count: Int, _ field: String) throws(WireError) -> [PageKey] {
        let start = try take(count * PageKey.byteCount, field)
        return bytes.withUnsafeBytes { bytes in
            (0..<count).map {
                PageKey(wire: bytes.loadUnaligned(fromByteOffset: start + $0 * PageKey.byteCount, as: SIMD4.self))
            }
        }
    }

    /// Length-prefixed bytes. The slice shares the body's storage, so that large payloads are not copied.
    mutating func readBytes(_ field: String) throws(WireError) -> ArraySlice<UInt8> {
        let count = Int(try readInteger(field) as UInt32)
        let start = try take(count, field)
        return bytes[start..<start + count]
    }

    /// Length-prefixed UTF-8 text.
    mutating func readString(_ field: String) throws(WireError) -> String {
        let raw = try readBytes(field)
        guard let text = String(validating: raw, as: UTF8.self) else {
            throw WireError(.invalidField, field: field, "not valid UTF-8")
        }
        return text
    }

    /// Throws ``ErrorCode/trailingBytes`` unless everything was read.
    func finish() throws(WireError) {
        guard remaining == 0 else { throw WireError(.trailingBytes, "\(remaining) bytes after the last field") }
    }
}
