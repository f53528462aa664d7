/// The bytes of one page, which stay as they are while this is held, whatever becomes of the page meanwhile.
public final class BorrowedPage: @unchecked Sendable {
    // Justified: the raw memory is only read once the object is made.
    /// The page as it was put, if ``Store/confirm(_:checksum:)`` says so.
    public let bytes: UnsafeRawBufferPointer
    let key: StoreKey
    let expected: UInt64
    let extent: RAMExtent?
    private let buffer: RecordBuffer?
    /// Pages from disk are checked as they are read.
    public var isConfirmed: Bool { extent == nil }

    init(key: StoreKey, extent: RAMExtent, expected: UInt64) {
        self.key = key
        self.expected = expected
        self.extent = extent
        buffer = nil
        bytes = extent.bytes
    }

    init(key: StoreKey, buffer: consuming RecordBuffer, bytes: UnsafeRawBufferPointer, expected: UInt64) {
        self.key = key
        self.expected = expected
        extent = nil
        self.buffer = consume buffer
        self.bytes = bytes
    }
}
