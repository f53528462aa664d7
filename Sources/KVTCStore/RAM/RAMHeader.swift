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
