/// A segment and how far it is written.
struct SegmentState: Sendable {
    let segment: Segment
    /// The end of the last good record.
    var tail: Int
    /// The file may reach to here after a failed write.
    var end: Int
    /// Durable up to here.
    var synced: Int
    /// A sync failed, or some of it cannot be read. What was not durable then may be lost although later syncs would report
    /// success, so there are none.
    var failed = false
    /// Whether an earlier process wrote it, and may have made all of it durable.
    let isInherited: Bool
    /// Where the file is now.
    var path: String

    init(segment: Segment, tail: Int, end: Int, synced: Int, isInherited: Bool) {
        self.segment = segment
        self.tail = tail
        self.end = end
        self.synced = synced
        self.isInherited = isInherited
        path = segment.path
    }
}
