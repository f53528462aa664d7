import Glibc

/// What a record says. The numbers are part of the disk format.
enum RecordKind: UInt8, Sendable {
    /// A page: attributes and payload.
    case page = 1
    /// The key's earlier records no longer count; see ``Removal``.
    case tombstone = 2
    /// New attributes of a page that lies earlier in the log.
    case attributes = 3
    /// The segment is complete and its content was synced before this record was written.
    case seal = 4
    /// What the segment's other records say.
    case index = 5
    /// All earlier records of the tenant no longer count.
    case tenantTombstone = 6
}

/// The 128 byte header in front of every record; the article DiskFormat documents it byte by byte.
struct RecordHeader: Hashable, Sendable {
    static let bytes = 128
    static let alignment = 64
    static let magic: UInt32 = 0x3152_564B  // "KVR1"
    private static let checksumOffset = 120

    var kind: RecordKind
    var key: StoreKey
    var attributes: PageAttributes
    var payloadBytes: Int
    var payloadHash: UInt64

    /// The last record of a complete segment.
    static let seal = RecordHeader(
        kind: .seal, key: StoreKey(tenant: 0, words: .zero), attributes: PageAttributes(), payloadBytes: 0,
        payloadHash: 0)

    /// Header, payload and padding; nil when that overflows.
    static func recordBytes(payload: Int) -> Int? {
        let (sum, overflow) = payload.addingReportingOverflow(bytes + alignment - 1)
        return overflow || payload < 0 ? nil : sum / alignment * alignment
    }

    var recordBytes: Int { Self.recordBytes(payload: payloadBytes)! }

    /// Writes the header for the place where the record will lie; the checksum binds it to that place.
    func write(to target: UnsafeMutableRawBufferPointer, segment: UInt64, offset: Int, salt: UInt64) {
        precondition(target.count >= Self.bytes)
        func store<T: FixedWidthInteger>(_ value: T, _ at: Int) {
            target.storeBytes(of: value.littleEndian, toByteOffset: at, as: T.self)
        }
        memset(target.baseAddress!, 0, Self.bytes)
        store(Self.magic, 0)
        store(kind.rawValue, 4)
        store(attributes.flags, 5)
        store(attributes.priority, 6)
        store(key.tenant, 8)
        store(attributes.tokens, 12)
        store(attributes.firstPosition, 16)
        store(attributes.ttl, 20)
        store(UInt64(payloadBytes), 24)
        store(attributes.rawBytes, 32)
        store(attributes.expires ?? 0, 40)
        store(segment, 48)
        store(UInt64(offset), 56)
        for word in 0..<4 { store(key.words[word], 64 + 8 * word) }
        store(payloadHash, 96)
        let covered = UnsafeRawBufferPointer(rebasing: target[..<Self.checksumOffset])
        store(checksum(covered, seed: salt), Self.checksumOffset)
    }

    /// The header at the start of `source`, if it is one that was written for exactly this place.
    static func parse(_ source: UnsafeRawBufferPointer, segment: UInt64, offset: Int, salt: UInt64) -> RecordHeader? {
        guard source.count >= bytes else { return nil }
        func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
            T(littleEndian: source.loadUnaligned(fromByteOffset: at, as: T.self))
        }
        guard load(0, as: UInt32.self) == magic,
            load(checksumOffset) == checksum(UnsafeRawBufferPointer(rebasing: source[..<checksumOffset]), seed: salt),
            load(48, as: UInt64.self) == segment, load(56, as: UInt64.self) == UInt64(offset),
            let kind = RecordKind(rawValue: load(4)), let payload = Int(exactly: load(24, as: UInt64.self)),
            recordBytes(payload: payload) != nil
        else { return nil }
        let attributes = PageAttributes(
            flags: load(5), priority: load(6), expires: load(40), ttl: load(20), firstPosition: load(16),
            tokens: load(12), rawBytes: load(32))
        let words = SIMD4<UInt64>(load(64), load(72), load(80), load(88))
        return RecordHeader(
            kind: kind, key: StoreKey(tenant: load(8), words: words), attributes: attributes, payloadBytes: payload,
            payloadHash: load(96))
    }
}
