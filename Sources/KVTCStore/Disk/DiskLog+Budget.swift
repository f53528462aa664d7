// How much fits: into a segment, and into the budget.
extension DiskLog {
    /// The configured size, so large that 512 segments fill the budget and so small that four fit.
    static func segmentBytes(_ configuration: StoreConfiguration) -> Int {
        let wanted = max(configuration.segmentBytes, configuration.diskBudget / 512)
        return min(wanted, configuration.diskBudget / 4) / RecordHeader.alignment * RecordHeader.alignment
    }

    /// The largest payload for which a segment has room beside its header, its index and its seal.
    static func maxPayloadBytes(_ configuration: StoreConfiguration) -> Int {
        let room = segmentBytes(configuration) - SegmentHeader.bytes - RecordHeader.bytes - closingBytes(1)
        return min(max(0, room), SegmentIndex.maxPayloadBytes)
    }

    /// What a record takes of the budget with its share of what else is in its segment, where records are of up to `largest`
    /// bytes.
    func share(_ recordBytes: Int, largest: Int) -> Int {
        let overhead = SegmentHeader.bytes + 2 * RecordHeader.bytes
        let records = max(1, (segmentBytes - overhead) / (largest + SegmentIndex.entryBytes))
        return recordBytes + SegmentIndex.entryBytes + overhead / records + 1
    }

    /// What completing a segment of so many records takes.
    static func closingBytes(_ records: Int) -> Int { SegmentIndex.recordBytes(records) + RecordHeader.bytes }

    /// Every segment is an open file, and each restart may leave a short one.
    static let maxSegments = 800

    /// Bytes of all files.
    var used: Int {
        segments.reduce(markFiles.count * TimeMark.bytes) { $0 + $1.end } + setAside.reduce(0) { $0 + $1.bytes }
    }

    /// Whether a record fits into the budget. One segment's worth is kept back for records that are carried over from
    /// a segment about to be dropped. Where the budget has shrunk below what there is, they are what makes room: they fit.
    func fits(_ recordBytes: Int, reserve: Bool, makesRoom: Bool = false) -> Bool {
        if makesRoom, used > budget { return true }
        let active = hasActive ? Self.closingBytes(activeIndex.count + 1) : 0
        let overhead = SegmentHeader.bytes + active + Self.closingBytes(1)
        return used + recordBytes + overhead <= (reserve ? budget : budget - segmentBytes)
    }
}
