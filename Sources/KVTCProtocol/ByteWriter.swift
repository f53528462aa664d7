/// Builds a message body field by field.
public struct ByteWriter: Sendable {
    /// What has been written, without the payload.
    public private(set) var fields: [UInt8] = []
    /// The bytes after the fields; they are not copied, because pages are large.
    public private(set) var payload: ArraySlice<UInt8> = []
    /// All that has been written.
    public var bytes: [UInt8] { payload.isEmpty ? fields : fields + payload }

    /// Starts an empty body.
    public init(reserving capacity: Int = 64) { fields.reserveCapacity(capacity) }

    /// Appends an unsigned integer, least significant byte first.
    public mutating func write(_ value: some FixedWidthInteger & UnsignedInteger) {
        precondition(payload.isEmpty, "the payload comes last")
        withUnsafeBytes(of: value.littleEndian) { fields.append(contentsOf: $0) }
    }

    /// Appends a key.
    mutating func write(_ key: PageKey) { withUnsafeBytes(of: key.wire) { fields.append(contentsOf: $0) } }

    /// Appends keys, one behind another.
    mutating func write(_ keys: [PageKey]) {
        fields.reserveCapacity(fields.count + keys.count * PageKey.byteCount)
        for key in keys { write(key) }
    }

    /// Appends length-prefixed bytes that end the body.
    public mutating func write(payload bytes: ArraySlice<UInt8>) {
        write(UInt32(bytes.count))
        payload = bytes
    }

    /// Appends a single-precision number as its bit pattern.
    public mutating func write(_ value: Float) { write(value.bitPattern) }

    /// Appends length-prefixed bytes. The length must be below 4 GiB, which every legal body is by far.
    public mutating func write(_ value: some Collection<UInt8>) {
        write(UInt32(value.count))
        fields.append(contentsOf: value)
    }

    /// Appends length-prefixed UTF-8 text.
    public mutating func write(_ value: String) { write(Array(value.utf8)) }
}
