/// Reads a message body field by field; every length is checked against what is left before it is used.
public struct ByteReader: Sendable {
    private let bytes: [UInt8]
    private var position = 0

    /// Starts at the first byte of a body.
    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// How many bytes are not read yet.
    public var remaining: Int { bytes.count - position }

    private mutating func take(_ count: Int, _ field: String) throws(WireError) -> Int {
        guard count <= remaining else {
            throw WireError(.truncated, field: field, "\(count) bytes expected, \(remaining) left")
        }
        defer { position += count }
        return position
    }

    private mutating func readInteger<T: FixedWidthInteger>(_ field: String) throws(WireError) -> T {
        let start = try take(MemoryLayout<T>.size, field)
        return bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: T.self)) }
    }

    /// The next byte.
    public mutating func readUInt8(_ field: String) throws(WireError) -> UInt8 { try readInteger(field) }
    /// The next two bytes as an unsigned integer.
    public mutating func readUInt16(_ field: String) throws(WireError) -> UInt16 { try readInteger(field) }
    /// The next four bytes as an unsigned integer.
    public mutating func readUInt32(_ field: String) throws(WireError) -> UInt32 { try readInteger(field) }
    /// The next eight bytes as an unsigned integer.
    public mutating func readUInt64(_ field: String) throws(WireError) -> UInt64 { try readInteger(field) }
    /// The next four bytes as an IEEE 754 number; NaN and infinities pass, the meaning decides about them.
    public mutating func readFloat(_ field: String) throws(WireError) -> Float {
        Float(bitPattern: try readInteger(field))
    }

    /// Length-prefixed bytes. The slice shares the body's storage, so that large payloads are not copied.
    public mutating func readBytes(_ field: String) throws(WireError) -> ArraySlice<UInt8> {
        let count = Int(try readUInt32(field))
        let start = try take(count, field)
        return bytes[start..<start + count]
    }

    /// Length-prefixed UTF-8 text.
    public mutating func readString(_ field: String) throws(WireError) -> String {
        let raw = try readBytes(field)
        guard let text = String(validating: raw, as: UTF8.self) else {
            throw WireError(.invalidField, field: field, "not valid UTF-8")
        }
        return text
    }

    /// One byte that must be a case of the enumeration.
    public mutating func readCase<T: RawRepresentable<UInt8>>(
        _ field: String, as type: T.Type = T.self
    ) throws(WireError) -> T {
        let raw = try readUInt8(field)
        guard let value = T(rawValue: raw) else {
            throw WireError(.invalidField, field: field, "\(raw) is not a known value")
        }
        return value
    }

    /// The same, where one number stands for none of the cases.
    mutating func readCase<T: RawRepresentable<UInt8>>(_ field: String, none: UInt8) throws(WireError) -> T? {
        var ahead = self
        guard try ahead.readUInt8(field) == none else { return try readCase(field, as: T.self) }
        self = ahead
        return nil
    }

    /// A counted list. The count is checked against the smallest size an item can have before anything is reserved,
    /// so that a hostile count costs nothing.
    public mutating func readList<T>(
        _ field: String, itemBytes: Int, _ item: (inout ByteReader, Int) throws(WireError) -> T
    ) throws(WireError) -> [T] {
        let count = Int(try readUInt32(field))
        guard count <= remaining / itemBytes else {
            throw WireError(.truncated, field: field, "\(count) items do not fit into the \(remaining) bytes left")
        }
        var items: [T] = []
        items.reserveCapacity(count)
        for index in 0..<count { items.append(try item(&self, index)) }
        return items
    }

    /// Throws ``ErrorCode/trailingBytes`` unless everything was read.
    public func finish() throws(WireError) {
        guard remaining == 0 else { throw WireError(.trailingBytes, "\(remaining) bytes after the last field") }
    }
}

extension ByteReader {
    mutating func readKeys(_ field: String) throws(WireError) -> [PageKey] {
        try readList(field, itemBytes: PageKey.byteCount) { r, _ throws(WireError) in
            try PageKey(from: &r, field: field)
        }
    }

    // Length-prefixed bytes that must each be a case of the enumeration.
    mutating func readCases<T: RawRepresentable<UInt8>>(_ field: String) throws(WireError) -> [T] {
        try readList(field, itemBytes: 1) { r, _ throws(WireError) in try r.readCase(field) }
    }
}
