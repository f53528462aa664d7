import KVTCModel

/// Goes through the bytes of a GGUF file, of which it holds a piece at a time.
public struct GGUFReader {
    private let total: Int
    private let read: (Range<Int>) throws(ModelError) -> [UInt8]
    private var piece: ArraySlice<UInt8> = []
    private var position = 0

    /// Types of values.
    static let (string, array) = (8, 9)
    /// Bytes of a value, by type: u8, i8, u16, i16, u32, i32, f32, bool, u64, i64, f64.
    static let widths = [0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8]
    private static let (signed, floats): (Set<Int>, Set<Int>) = ([1, 3, 5, 11], [6, 12])

    /// - Parameters:
    ///   - total: bytes of the file.
    ///   - read: gives some of them.
    public init(byteCount total: Int, _ read: @escaping (Range<Int>) throws(ModelError) -> [UInt8]) {
        (self.total, self.read) = (total, read)
    }

    mutating func take(_ count: Int) throws(ModelError) -> [UInt8] {
        try expect(count)
        if piece.count < count { piece = try read(position..<min(total, position + max(count, 1 << 18)))[...] }
        defer { (position, piece) = (position + count, piece.dropFirst(count)) }
        return Array(piece.prefix(count))
    }

    private func expect(_ count: Int) throws(ModelError) {
        guard count <= total - position else {
            throw ModelError(field: "gguf", "ends within its header, at byte \(position): is it whole?")
        }
    }

    mutating func skip(_ count: Int, of width: Int = 1) throws(ModelError) {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: width)
        try expect(overflow ? .max : bytes)
        (position, piece) = (position + bytes, piece.dropFirst(bytes))
    }

    /// A length, count or type.
    mutating func number(_ width: Int) throws(ModelError) -> Int {
        guard let number = Int(exactly: try word(width)) else {
            throw ModelError(field: "gguf", "a length above 2^63 at byte \(position - width)")
        }
        return number
    }

    private mutating func word(_ width: Int) throws(ModelError) -> UInt64 {
        try take(width).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// A key, or a name, which gguf.md allows 65535 bytes.
    mutating func string() throws(ModelError) -> String {
        let count = try number(8)
        guard count < 1 << 16 else {
            throw ModelError(field: "gguf", "a name of \(count) bytes; at most 65535 are allowed")
        }
        return String(decoding: try take(count), as: UTF8.self)
    }

    /// A value; nil where it is no whole number.
    mutating func value(_ type: Int) throws(ModelError) -> Int? {
        if type == Self.string {
            try skip(number(8))
            return nil
        }
        guard let width = Self.widths[type] else {
            throw ModelError(field: "gguf", "a value of the unknown type \(type)")
        }
        let word = try word(width)
        if Self.floats.contains(type) { return nil }
        let unused = 64 - 8 * width
        return Self.signed.contains(type) ? Int(Int64(bitPattern: word << unused) >> unused) : Int(exactly: word)
    }
}
