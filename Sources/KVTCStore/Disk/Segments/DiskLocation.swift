/// Where a page lies on disk.
struct DiskLocation: Sendable {
    let segment: Segment
    let offset: Int
    /// Bytes of header, payload and padding.
    let recordBytes: Int

    func isSame(as other: DiskLocation) -> Bool { segment === other.segment && offset == other.offset }

    init(_ segment: Segment, _ offset: Int, _ recordBytes: Int) {
        self.segment = segment
        self.offset = offset
        self.recordBytes = recordBytes
    }
}
