/// Reads one segment file from its start to its end and reports the records that are intact.
///
/// A sealed segment was synced before it was sealed, so only its headers are read (payloads are verified whenever a page
/// is read). Any other segment is read in full, and what is torn or damaged is left out.
struct SegmentScanner {
    struct Record: Sendable {
        let header: RecordHeader
        let offset: Int
    }

    let segment: Segment
    let size: Int
    private(set) var records: [Record] = []
    /// The end of the last intact record.
    private(set) var tail = SegmentHeader.bytes
    /// Stretches that held no intact record, except the tail.
    private(set) var skipped = 0
    /// Whether the segment was complete.
    private(set) var sealed = false
    /// Whether any header was intact, be its record whole or not.
    private(set) var sawHeader = false
    /// Device calls that failed; the file must not be cut then.
    private(set) var readErrors: UInt64 = 0

    init(segment: Segment, size: Int) {
        self.segment = segment
        self.size = size
    }

    /// Whether bytes that are not part of any record follow the last intact one.
    var isTorn: Bool { tail < size }

    mutating func scan() {
        sealed = isSealed()
        var offset = SegmentHeader.bytes
        var damaged = false
        while offset + RecordHeader.bytes <= size {
            if let record = intactRecord(at: offset) {
                if damaged { skipped += 1 }
                damaged = false
                tail = offset + record.header.recordBytes
                if record.header.kind != .seal { records.append(record) }
                offset = tail
            } else {
                damaged = true
                guard let next = nextHeader(after: offset) else { break }
                offset = next
            }
        }
    }

    /// Whether the file ends with the seal of this segment.
    private mutating func isSealed() -> Bool {
        let offset = size - RecordHeader.bytes
        guard offset >= SegmentHeader.bytes, offset % RecordHeader.alignment == 0 else { return false }
        return header(at: offset)?.kind == .seal
    }

    private mutating func header(at offset: Int) -> RecordHeader? {
        let buffer = RecordBuffer(bytes: RecordHeader.bytes)
        guard read(into: buffer.memory, at: offset) == RecordHeader.bytes else { return nil }
        return parse(UnsafeRawBufferPointer(buffer.memory), offset)
    }

    private func parse(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> RecordHeader? {
        RecordHeader.parse(bytes, segment: segment.id, offset: offset, salt: segment.salt)
    }

    private mutating func intactRecord(at offset: Int) -> Record? {
        guard let header = header(at: offset) else { return nil }
        sawHeader = true
        guard header.recordBytes <= size - offset else { return nil }
        if header.kind == .page, !sealed {
            let buffer = RecordBuffer(bytes: header.payloadBytes)
            guard read(into: buffer.memory, at: offset + RecordHeader.bytes) == header.payloadBytes,
                checksum(UnsafeRawBufferPointer(buffer.memory)) == header.payloadHash
            else { return nil }
        }
        return Record(header: header, offset: offset)
    }

    /// The place of the next intact header behind a damaged record. The salt keeps page bytes from posing as one.
    private mutating func nextHeader(after offset: Int) -> Int? {
        let buffer = RecordBuffer(bytes: 1 << 20)
        var start = offset + RecordHeader.alignment
        while start + RecordHeader.bytes <= size {
            let count = read(into: buffer.memory, at: start)
            let bytes = UnsafeRawBufferPointer(rebasing: buffer.memory[..<count])
            var at = 0
            while at + RecordHeader.bytes <= count {
                let candidate = UnsafeRawBufferPointer(rebasing: bytes[at...])
                if parse(candidate, start + at) != nil { return start + at }
                at += RecordHeader.alignment
            }
            // A stretch that cannot be read is stepped over like a damaged one.
            start += max(at, count == 0 ? buffer.memory.count : RecordHeader.alignment)
        }
        return nil
    }

    private mutating func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        do {
            return try segment.device.readAll(segment.file, segment.path, buffer, at: offset)
        } catch {
            readErrors += 1
            return 0
        }
    }
}
