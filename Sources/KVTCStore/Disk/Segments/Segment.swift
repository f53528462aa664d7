/// One segment file, open for as long as it may be read from: a reader keeps the object, so dropping the segment
/// (unlinking the file) does not disturb it.
final class Segment: Sendable {
    let id: UInt64
    let path: String
    /// Random per segment and mixed into every record's checksum: page bytes cannot pose as a record.
    let salt: UInt64
    /// The first segment of the run that this one is of; see ``SegmentHeader/run``.
    let run: UInt64
    let file: Int32
    let device: any StorageDevice

    init(id: UInt64, path: String, salt: UInt64, run: UInt64, file: Int32, device: any StorageDevice) {
        self.id = id
        self.path = path
        self.salt = salt
        self.run = run
        self.file = file
        self.device = device
    }

    /// Whether an earlier process could not read it in full, and a flush answered for what that process had found: see the article
    /// DiskFormat.
    var isUnread: Bool { path.hasSuffix(SegmentName.unreadSuffix) }

    deinit { device.close(file) }
}
