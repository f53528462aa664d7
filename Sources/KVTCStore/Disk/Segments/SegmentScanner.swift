/// Reads one segment file from its start to its end and reports the records that are intact.
///
/// A sealed segment was synced before it was sealed, so its index is believed, or without one its headers are (payloads
/// are verified whenever a page is read). Any other segment is read in full, and what is torn or damaged is left out.
package struct SegmentScanner {
    /// Fills the buffer from an offset of the file, as far as the file goes; returns the bytes read.
    typealias Read = (UnsafeMutableRawBufferPointer, Int) throws(DeviceError) -> Int

    private let id: UInt64
    private let salt: UInt64
    private let size: Int
    private let source: Read
    /// Whether payloads are read even where the segment is sealed.
    private let verifiesAll: Bool
    private(set) var records: [SegmentRecord] = []
    /// The end of the last intact record.
    private(set) var tail = SegmentHeader.bytes
    /// Stretches that held no intact record, except the tail.
    private(set) var skipped = 0
    /// Bytes in these stretches.
    private(set) var skippedBytes = 0
    /// Whether the segment was complete.
    private(set) var sealed = false
    /// Whether the segment has an intact index; it is not looked for in one that is not sealed.
    private(set) var isIndexed = false
    /// Whether any header was intact, be its record whole or not.
    private(set) var sawHeader = false
    /// Device calls that failed; the file must not be cut then.
    private(set) var readErrors: UInt64 = 0

    init(id: UInt64, salt: UInt64, size: Int, verifiesAll: Bool = false, read: @escaping Read) {
        self.id = id
        self.salt = salt
        self.size = size
        self.verifiesAll = verifiesAll
        source = read
    }

    init(segment: Segment, size: Int, verifiesAll: Bool = false) {
        self.init(id: segment.id, salt: segment.salt, size: size, verifiesAll: verifiesAll) {
            (buffer, offset) throws(DeviceError) in
            try segment.device.readAll(segment.file, segment.path, buffer, at: offset)
        }
    }

    /// Whether bytes that are not part of any record follow the last intact one.
    var isTorn: Bool { tail < size }

    mutating func scan() {
        let seal = sealHeader()
        sealed = seal != nil
        if let seal, let indexed = readIndex(seal) {
            isIndexed = true
            if !verifiesAll {
                records = indexed
                tail = size
                sawHeader = true
                return
            }
        }
        var offset = SegmentHeader.bytes
        var damaged: Int?
        while offset + RecordHeader.bytes <= size {
            if let record = intactRecord(at: offset) {
                if let start = damaged {
                    skipped += 1
                    skippedBytes += offset - start
                }
                damaged = nil
                tail = offset + record.header.recordBytes
                if record.header.kind != .seal, record.header.kind != .index { records.append(record) }
                offset = tail
            } else {
                damaged = damaged ?? offset
                guard let next = nextHeader(after: offset) else { break }
                offset = next
            }
        }
    }

    /// The seal that the file of a complete segment ends with.
    private mutating func sealHeader() -> RecordHeader? {
        let offset = size - RecordHeader.bytes
        guard offset >= SegmentHeader.bytes, offset % RecordHeader.alignment == 0, let header = header(at: offset),
            header.kind == .seal
        else { return nil }
        return header
    }

    /// The records that the index tells of; nil without an intact one.
    private mutating func readIndex(_ seal: RecordHeader) -> [SegmentRecord]? {
        guard let offset = Int(exactly: seal.attributes.rawBytes), offset >= SegmentHeader.bytes,
            offset % RecordHeader.alignment == 0, offset <= size - 2 * RecordHeader.bytes,
            let header = header(at: offset), header.kind == .index,
            header.recordBytes == size - RecordHeader.bytes - offset
        else { return nil }
        let buffer = RecordBuffer(bytes: header.payloadBytes)
        guard read(into: buffer.memory, at: offset + RecordHeader.bytes) == header.payloadBytes,
            checksum(UnsafeRawBufferPointer(buffer.memory)) == header.payloadHash
        else { return nil }
        return SegmentIndex.parse(UnsafeRawBufferPointer(buffer.memory), end: offset)
    }

    private mutating func header(at offset: Int) -> RecordHeader? {
        let buffer = RecordBuffer(bytes: RecordHeader.bytes)
        guard read(into: buffer.memory, at: offset) == RecordHeader.bytes else { return nil }
        return parse(UnsafeRawBufferPointer(buffer.memory), offset)
    }

    private func parse(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> RecordHeader? {
        RecordHeader.parse(bytes, segment: id, offset: offset, salt: salt)
    }

    private mutating func intactRecord(at offset: Int) -> SegmentRecord? {
        guard let header = header(at: offset) else { return nil }
        sawHeader = true
        guard header.recordBytes <= size - offset else { return nil }
        if header.payloadBytes > 0, !sealed || verifiesAll {
            let buffer = RecordBuffer(bytes: header.payloadBytes)
            guard read(into: buffer.memory, at: offset + RecordHeader.bytes) == header.payloadBytes,
                checksum(UnsafeRawBufferPointer(buffer.memory)) == header.payloadHash
            else { return nil }
        }
        return SegmentRecord(header: header, offset: offset)
    }

    /// The place of the next intact header behind a damaged record. The salt keeps page bytes from posing as one.
    private mutating func nextHeader(after offset: Int) -> Int? {
        let buffer = RecordBuffer(bytes: min(1 << 20, max(size, RecordHeader.bytes)))
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
            return try source(buffer, offset)
        } catch {
            readErrors += 1
            return 0
        }
    }
}
