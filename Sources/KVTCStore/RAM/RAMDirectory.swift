import Glibc

/// What an arena's directory says of one page in it; the article RAMFormat documents the bytes.
package struct RAMRecord: Hashable, Sendable {
    var key: StoreKey
    var attributes: PageAttributes
    /// Where the page begins in the arena's data.
    var offset = 0
    var length: Int
    var hash: UInt64
    /// Grows with every record of a process and its successors; of two records of a key the higher one counts.
    var sequence: UInt64
    /// Position in the order of use; not covered by the checksum, because it changes with every use.
    var lastUse: UInt64
    /// The slot that says so.
    var slot = 0
}

/// The bytes of one slot of an arena's directory.
enum RAMSlot {
    static let bytes = 128
    /// What the checksum covers: everything but itself and ``lastUseOffset``.
    private static let covered = 8..<120
    static let sequenceOffset = 8
    static let lastUseOffset = 120
    private static let hashOffset = 32
    private static let ttlOffset = 104

    /// The word that makes a slot valid, and is written last. Never 0, which means free.
    static func commitWord(_ slot: UnsafeRawBufferPointer, index: Int, salt: UInt64) -> UInt64 {
        let sum = checksum(UnsafeRawBufferPointer(rebasing: slot[covered]), seed: salt &+ UInt64(index))
        return sum == 0 ? 1 : sum
    }

    /// Writes all but the first word.
    static func write(_ record: RAMRecord, to target: UnsafeMutableRawBufferPointer) {
        precondition(target.count == bytes)
        func store<T: FixedWidthInteger>(_ value: T, _ at: Int) {
            target.storeBytes(of: value.littleEndian, toByteOffset: at, as: T.self)
        }
        store(record.sequence, sequenceOffset)
        store(UInt64(record.offset), 16)
        store(UInt64(record.length), 24)
        store(record.hash, hashOffset)
        store(record.attributes.rawBytes, 40)
        store(record.attributes.expires ?? 0, 48)
        store(record.key.tenant, 56)
        store(record.attributes.tokens, 60)
        store(record.attributes.firstPosition, 64)
        store(record.attributes.flags, 68)
        store(record.attributes.priority, 69)
        store(UInt16(0), 70)
        for word in 0..<4 { store(record.key.words[word], 72 + 8 * word) }
        store(UInt64(record.attributes.ttl), ttlOffset)
        store(UInt64(0), 112)
        store(record.lastUse, lastUseOffset)
    }

    static func hash(_ slot: UnsafeRawBufferPointer) -> UInt64 {
        UInt64(littleEndian: slot.loadUnaligned(fromByteOffset: hashOffset, as: UInt64.self))
    }

    static func lastUse(_ slot: UnsafeRawBufferPointer) -> UInt64 {
        UInt64(littleEndian: slot.loadUnaligned(fromByteOffset: lastUseOffset, as: UInt64.self))
    }

    static func ttl(_ slot: UnsafeRawBufferPointer) -> UInt32 {
        UInt32(littleEndian: slot.loadUnaligned(fromByteOffset: ttlOffset, as: UInt32.self))
    }

    enum Parsed: Equatable {
        case record(RAMRecord)
        /// Used once, free now, or about to be written when the process ended.
        case free
        /// Never used; neither is any slot behind it.
        case unused
        case damaged
    }

    static func parse(_ slot: UnsafeRawBufferPointer, index: Int, header: RAMHeader) -> Parsed {
        func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
            T(littleEndian: slot.loadUnaligned(fromByteOffset: at, as: T.self))
        }
        let word: UInt64 = load(0)
        // All of it, since a single bit that flips must not hide the slots behind.
        guard word != 0 else { return slot.allSatisfy { $0 == 0 } ? .unused : .free }
        guard word == commitWord(slot, index: index, salt: header.salt),
            let offset = Int(exactly: load(16, as: UInt64.self)), let length = Int(exactly: load(24, as: UInt64.self)),
            offset % ExtentAllocator.granularity == 0, length > 0, let size = ExtentAllocator.rounded(length),
            size <= header.dataBytes, offset <= header.dataBytes - size
        else { return .damaged }
        let attributes = PageAttributes(
            flags: load(68), priority: load(69), expires: load(48), ttl: load(ttlOffset), firstPosition: load(64),
            tokens: load(60), rawBytes: load(40))
        let words = SIMD4<UInt64>(load(72), load(80), load(88), load(96))
        return .record(
            RAMRecord(
                key: StoreKey(tenant: load(56), words: words), attributes: attributes, offset: offset, length: length,
                hash: load(hashOffset), sequence: load(sequenceOffset), lastUse: load(lastUseOffset), slot: index))
    }
}

/// The start of an arena.
struct RAMHeader: Hashable, Sendable {
    static let bytes = 4096
    static let version: UInt32 = 1
    static let magic: UInt64 = 0x0A4D_4152_4354_564B  // "KVTCRAM\n"
    /// Where the clocks are that the arena was made at; zeros in those of earlier versions.
    static let markOffset = 64
    private static let checksumOffset = 56
    /// Most bytes of data: the index keeps the place and the slot of a page in 32 bits each.
    static let largest = 1 << 39

    /// Random; the seed of the checksums of this arena's slots.
    var salt: UInt64
    var slots: Int
    var dataBytes: Int
    /// Wall-clock seconds, for people.
    var created: UInt64

    /// An arena whose slots suffice for pages of the smallest extent, and one more for a record that replaces another.
    init(dataBytes: Int, salt: UInt64, created: UInt64) {
        self.salt = salt
        self.dataBytes = dataBytes
        self.created = created
        slots = dataBytes / ExtentAllocator.granularity + 1
    }

    /// Where the pages begin.
    var dataOffset: Int { Self.bytes + (slots * RAMSlot.bytes + 4095) / 4096 * 4096 }
    var fileBytes: Int { dataOffset + dataBytes }

    func write(to target: UnsafeMutableRawBufferPointer) {
        func store<T: FixedWidthInteger>(_ value: T, _ at: Int) {
            target.storeBytes(of: value.littleEndian, toByteOffset: at, as: T.self)
        }
        store(Self.magic, 0)
        store(Self.version, 8)
        store(UInt32(Self.bytes), 12)
        store(salt, 16)
        store(UInt64(slots), 24)
        store(UInt64(dataOffset), 32)
        store(UInt64(dataBytes), 40)
        store(created, 48)
        store(checksum(UnsafeRawBufferPointer(rebasing: target[..<Self.checksumOffset])), Self.checksumOffset)
    }

    /// Checks the start of a file of the given size. Magic, version and checksum keep their places in every version.
    static func parse(_ source: UnsafeRawBufferPointer, fileBytes: Int) throws(RAMDirectoryError) -> RAMHeader {
        guard source.count >= bytes else { throw .truncated }
        func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
            T(littleEndian: source.loadUnaligned(fromByteOffset: at, as: T.self))
        }
        guard load(0, as: UInt64.self) == magic else { throw .notAnArena }
        guard load(checksumOffset) == checksum(UnsafeRawBufferPointer(rebasing: source[..<checksumOffset])) else {
            throw .badChecksum
        }
        let version: UInt32 = load(8)
        guard version <= Self.version else { throw .newerFormat(found: version, supported: Self.version) }
        guard version == Self.version, load(12, as: UInt32.self) == UInt32(bytes),
            let dataBytes = Int(exactly: load(40, as: UInt64.self)), dataBytes > 0,
            dataBytes <= min(fileBytes, largest),
            dataBytes % ExtentAllocator.granularity == 0
        else { throw .inconsistent }
        let header = RAMHeader(dataBytes: dataBytes, salt: load(16), created: load(48))
        guard load(24, as: UInt64.self) == UInt64(header.slots), load(32, as: UInt64.self) == UInt64(header.dataOffset),
            header.fileBytes == fileBytes
        else { throw .inconsistent }
        return header
    }
}

/// Why a memory file is not used.
package enum RAMDirectoryError: Error, Hashable, Sendable, CustomStringConvertible {
    case notAnArena
    case truncated
    case badChecksum
    case newerFormat(found: UInt32, supported: UInt32)
    case inconsistent
    case notSealed
    case system(operation: String, code: Int32)

    /// The reason in words, fit for a log.
    package var description: String {
        switch self {
        case .notAnArena: "it does not begin as an arena does"
        case .truncated: "it is too short"
        case .badChecksum: "the checksum of its header is wrong"
        case .newerFormat(let found, let supported): "it has format \(found), this version reads up to \(supported)"
        case .inconsistent: "its header contradicts itself or the file's size"
        case .notSealed: "it is not sealed against shrinking and growing"
        case .system(let operation, let code): "\(operation): \(DeviceError.text(code))"
        }
    }
}

/// What an arena holds, as found by a process that did not write it.
package struct RAMDirectory: Sendable {
    package private(set) var records: [RAMRecord] = []
    /// Slots that are neither free nor valid.
    package private(set) var damaged = 0
    /// Slots from the first on that have ever been used.
    package private(set) var usedSlots = 0
    let header: RAMHeader
    /// How the clocks stood when the arena was made; nil in one of an earlier version.
    let mark: TimeMark?

    /// Reads the directory of an arena given as bytes.
    package static func scan(_ bytes: UnsafeRawBufferPointer) throws(RAMDirectoryError) -> RAMDirectory {
        try RAMDirectory(fileBytes: bytes.count) { (target, offset) throws(RAMDirectoryError) in
            guard offset <= bytes.count, target.count <= bytes.count - offset else { throw .truncated }
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + target.count]))
        }
    }

    /// Reads a directory through `read`, which fills a private buffer from an offset of the file: nothing is judged in
    /// shared memory.
    init(
        fileBytes: Int, read: (UnsafeMutableRawBufferPointer, Int) throws(RAMDirectoryError) -> Void
    ) throws(RAMDirectoryError) {
        guard fileBytes >= RAMHeader.bytes else { throw .truncated }
        let start = RecordBuffer(bytes: RAMHeader.bytes)
        try read(start.memory, 0)
        header = try RAMHeader.parse(UnsafeRawBufferPointer(start.memory), fileBytes: fileBytes)
        mark = TimeMark.parse(UnsafeRawBufferPointer(rebasing: start.memory[RAMHeader.markOffset...]))
        let slotsAtOnce = 8192
        let buffer = RecordBuffer(bytes: min(slotsAtOnce, header.slots) * RAMSlot.bytes)
        for first in stride(from: 0, to: header.slots, by: slotsAtOnce) {
            let count = min(slotsAtOnce, header.slots - first)
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<(count * RAMSlot.bytes)])
            try read(part, RAMHeader.bytes + first * RAMSlot.bytes)
            for index in first..<first + count {
                let begin = (index - first) * RAMSlot.bytes
                let slot = UnsafeRawBufferPointer(rebasing: part[begin..<begin + RAMSlot.bytes])
                switch RAMSlot.parse(slot, index: index, header: header) {
                case .record(let record): records.append(record)
                case .damaged: damaged += 1
                case .free: break
                case .unused: return
                }
                usedSlots = index + 1
            }
        }
    }
}
