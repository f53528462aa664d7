import Glibc

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
