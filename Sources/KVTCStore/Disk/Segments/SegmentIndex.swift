/// The index near the end of a complete segment: what its records say, so that a start need not read them one by one. It
/// is the payload of a record of its own, and the seal behind it says where that is.
struct SegmentIndex: Sendable {
    static let entryBytes = 88
    private(set) var bytes: [UInt8] = []

    /// The largest page that an index can tell of.
    static let maxPayloadBytes = Int(UInt32.max)

    var count: Int { bytes.count / Self.entryBytes }

    /// Bytes of the index record of so many records.
    static func recordBytes(_ count: Int) -> Int { RecordHeader.recordBytes(payload: count * entryBytes)! }

    mutating func append(_ header: RecordHeader, at offset: Int) {
        func store<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        store(header.kind.rawValue)
        store(header.attributes.flags)
        store(header.attributes.priority)
        store(UInt8(0))
        store(header.key.tenant)
        store(header.attributes.tokens)
        store(header.attributes.firstPosition)
        store(UInt32(clamping: header.payloadBytes))
        store(header.attributes.ttl)
        store(header.attributes.rawBytes)
        store(header.attributes.expires ?? 0)
        store(UInt64(offset))
        for word in 0..<4 { store(header.key.words[word]) }
        store(header.payloadHash)
    }

    /// The records that an index tells of, all of which lie before `end`; nil when it contradicts itself.
    static func parse(_ bytes: UnsafeRawBufferPointer, end: Int) -> [SegmentRecord]? {
        guard bytes.count % entryBytes == 0 else { return nil }
        var records: [SegmentRecord] = []
        records.reserveCapacity(bytes.count / entryBytes)
        var free = SegmentHeader.bytes
        for begin in stride(from: 0, to: bytes.count, by: entryBytes) {
            func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
                T(littleEndian: bytes.loadUnaligned(fromByteOffset: begin + at, as: T.self))
            }
            guard let kind = RecordKind(rawValue: load(0)), kind != .seal, kind != .index,
                case let payload = Int(load(16, as: UInt32.self)),
                let size = RecordHeader.recordBytes(payload: payload),
                let offset = Int(exactly: load(40, as: UInt64.self)), offset % RecordHeader.alignment == 0,
                offset >= free, offset <= end, size <= end - offset
            else { return nil }
            free = offset + size
            let attributes = PageAttributes(
                flags: load(1), priority: load(2), expires: load(32), ttl: load(20), firstPosition: load(12),
                tokens: load(8), rawBytes: load(24))
            let words = SIMD4<UInt64>(load(48), load(56), load(64), load(72))
            let header = RecordHeader(
                kind: kind, key: StoreKey(tenant: load(4), words: words), attributes: attributes,
                payloadBytes: payload, payloadHash: load(80))
            records.append(SegmentRecord(header: header, offset: offset))
        }
        return records
    }

    /// Index and seal as they are written at the end of a segment.
    func closing(segment: UInt64, salt: UInt64, at offset: Int) -> [UInt8] {
        var header = RecordHeader.seal
        header.kind = .index
        header.payloadBytes = bytes.count
        header.payloadHash = bytes.withUnsafeBytes { checksum($0) }
        var seal = RecordHeader.seal
        seal.attributes.rawBytes = UInt64(offset)
        var result = [UInt8](repeating: 0, count: header.recordBytes + RecordHeader.bytes)
        result.withUnsafeMutableBytes { target in
            header.write(to: target, segment: segment, offset: offset, salt: salt)
            let body = UnsafeMutableRawBufferPointer(rebasing: target[RecordHeader.bytes...])
            bytes.withUnsafeBytes { body.copyMemory(from: $0) }
            let end = UnsafeMutableRawBufferPointer(rebasing: target[header.recordBytes...])
            seal.write(to: end, segment: segment, offset: offset + header.recordBytes, salt: salt)
        }
        return result
    }
}
