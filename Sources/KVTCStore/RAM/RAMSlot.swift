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

    /// - Parameters:
    ///   - salt: the arena's.
    ///   - dataBytes: bytes for pages in the arena, which no page may reach beyond.
    static func parse(_ slot: UnsafeRawBufferPointer, index: Int, salt: UInt64, dataBytes: Int) -> Parsed {
        func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
            T(littleEndian: slot.loadUnaligned(fromByteOffset: at, as: T.self))
        }
        let word: UInt64 = load(0)
        // All of it, since a single bit that flips must not hide the slots behind.
        guard word != 0 else { return slot.allSatisfy { $0 == 0 } ? .unused : .free }
        guard word == commitWord(slot, index: index, salt: salt),
            let offset = Int(exactly: load(16, as: UInt64.self)), let length = Int(exactly: load(24, as: UInt64.self)),
            offset % ExtentAllocator.granularity == 0, length > 0, let size = ExtentAllocator.rounded(length),
            size <= dataBytes, offset <= dataBytes - size
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
