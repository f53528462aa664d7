/// A record without a payload that is written but not yet known to be durable.
enum SmallRecord: Sendable {
    case removal(Removal)
    /// New attributes of the page.
    case attributes(StoreKey)

    /// What lies there; nil for records of other kinds.
    init?(_ header: RecordHeader, in segment: Segment, at offset: Int) {
        if let removal = Removal(header, at: LogPosition(segment: segment.id, offset: offset)) {
            self = .removal(removal)
        } else if header.kind == .attributes {
            self = .attributes(header.key)
        } else {
            return nil
        }
    }
}
