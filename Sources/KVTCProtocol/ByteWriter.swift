/// Builds a message body field by field.
public struct ByteWriter: Sendable {
    /// What has been written.
    public private(set) var bytes: [UInt8] = []

    /// Starts an empty body.
    public init(reserving capacity: Int = 64) { bytes.reserveCapacity(capacity) }

    /// Appends an unsigned integer, least significant byte first.
    public mutating func write(_ value: some FixedWidthInteger & UnsignedInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    /// Appends a single-precision number as its bit pattern.
    public mutating func write(_ value: Float) { write(value.bitPattern) }

    /// Appends length-prefixed bytes. The length must be below 4 GiB, which every legal body is by far.
    public mutating func write(_ value: some Collection<UInt8>) {
        write(UInt32(value.count))
        bytes.append(contentsOf: value)
    }

    /// Appends length-prefixed UTF-8 text.
    public mutating func write(_ value: String) { write(Array(value.utf8)) }

    /// Appends a counted list.
    public mutating func write<T>(list: [T], _ item: (T, inout ByteWriter) -> Void) {
        write(UInt32(list.count))
        for element in list { item(element, &self) }
    }
}
