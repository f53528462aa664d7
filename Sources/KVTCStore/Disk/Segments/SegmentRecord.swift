/// A record as it lies in a segment.
struct SegmentRecord: Sendable {
    let header: RecordHeader
    let offset: Int
}
