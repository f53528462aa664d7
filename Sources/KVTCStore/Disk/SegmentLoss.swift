/// What became of a segment's file under the process that has it open.
enum SegmentLoss: Sendable {
    /// Its name is gone or leads to another file.
    case vanished(UInt64)
    /// It ends here.
    case cut(Segment, end: Int)

    /// The number of the segment.
    var segment: UInt64 {
        switch self {
        case .vanished(let id): id
        case .cut(let segment, _): segment.id
        }
    }
}
