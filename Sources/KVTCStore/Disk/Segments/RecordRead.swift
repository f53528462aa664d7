/// What reading a record gave.
enum RecordRead {
    /// The device failed; the page may be fine.
    case failed
    /// The record is not what was written.
    case corrupt
    /// The payload, verified, which lies in the buffer that was passed, and its checksum.
    case intact(UnsafeRawBufferPointer, hash: UInt64)
}
