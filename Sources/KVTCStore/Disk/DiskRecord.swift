import Glibc

/// A buffer for one record, aligned for any device, not initialised. Noncopyable: freed when its only owner is done.
struct RecordBuffer: ~Copyable {
    let memory: UnsafeMutableRawBufferPointer

    init(bytes: Int) {
        memory = .allocate(byteCount: bytes, alignment: 4096)
    }

    deinit { memory.deallocate() }
}

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

/// The 64 bytes at the start of every segment file.
package struct SegmentHeader: Hashable, Sendable {
    static let bytes = 64
    /// The format of new segments. Those of format 1 have no index.
    package static let version: UInt32 = 2
    static let magic: UInt64 = 0x0A47_4553_4354_564B  // "KVTCSEG\n"
    private static let checksumOffset = 56

    var id: UInt64
    var salt: UInt64
    /// Wall-clock seconds, for people.
    var created: UInt64
    /// The first segment of a run that was written with the pages most worth keeping first, as by a stop: the segments of the same
    /// run are worth less the later they are. 0 for other segments.
    var run: UInt64 = 0

    enum Parsed: Equatable {
        case valid(SegmentHeader)
        case newer(UInt32)
        case bad
    }

    func write(to target: UnsafeMutableRawBufferPointer, version: UInt32 = Self.version) {
        precondition(target.count >= Self.bytes)
        memset(target.baseAddress!, 0, Self.bytes)
        target.storeBytes(of: Self.magic.littleEndian, toByteOffset: 0, as: UInt64.self)
        target.storeBytes(of: version.littleEndian, toByteOffset: 8, as: UInt32.self)
        target.storeBytes(of: UInt32(Self.bytes).littleEndian, toByteOffset: 12, as: UInt32.self)
        target.storeBytes(of: id.littleEndian, toByteOffset: 16, as: UInt64.self)
        target.storeBytes(of: salt.littleEndian, toByteOffset: 24, as: UInt64.self)
        target.storeBytes(of: created.littleEndian, toByteOffset: 32, as: UInt64.self)
        target.storeBytes(of: run.littleEndian, toByteOffset: 40, as: UInt64.self)
        let sum = checksum(UnsafeRawBufferPointer(rebasing: target[..<Self.checksumOffset]))
        target.storeBytes(of: sum.littleEndian, toByteOffset: Self.checksumOffset, as: UInt64.self)
    }

    /// Magic, version and checksum keep their places in every later version, so a newer file is told from a damaged one.
    static func parse(_ source: UnsafeRawBufferPointer) -> Parsed {
        guard source.count >= bytes else { return .bad }
        func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
            T(littleEndian: source.loadUnaligned(fromByteOffset: at, as: T.self))
        }
        let sum = checksum(UnsafeRawBufferPointer(rebasing: source[..<checksumOffset]))
        guard load(0, as: UInt64.self) == magic, load(checksumOffset) == sum else { return .bad }
        let version: UInt32 = load(8)
        guard version <= Self.version else { return .newer(version) }
        guard (1...Self.version).contains(version), load(12, as: UInt32.self) == UInt32(bytes) else { return .bad }
        return .valid(SegmentHeader(id: load(16), salt: load(24), created: load(32), run: load(40)))
    }
}
