/// How the clocks stood at one moment; the article DiskFormat documents the bytes.
struct TimeMark: Hashable, Sendable {
    static let bytes = 64
    static let magic: UInt64 = 0x0A4B_4C43_4354_564B  // "KVTCCLK\n"
    private static let version: UInt32 = 1
    private static let checksumOffset = 56
    /// Milliseconds that no clock shows for some ten thousand years, far from overflowing.
    static let limit: Int64 = 1 << 48

    /// See ``StoreClock/boot``.
    var boot: UInt64
    /// Milliseconds of the steady clock.
    var steady: Int64
    /// Seconds of the wall clock.
    var wall: Int64
    /// Milliseconds of the store's time.
    var time: Int64

    /// Whether it says so much else than a mark of before that it should be written.
    func differs(from old: TimeMark) -> Bool {
        let wasSet = abs((time - wall * 1000) - (old.time - old.wall * 1000)) >= 2000
        return wasSet || boot != old.boot || time - old.time >= 3_600_000
    }

    func write(to target: UnsafeMutableRawBufferPointer) {
        precondition(target.count >= Self.bytes)
        for index in 0..<Self.bytes { target[index] = 0 }
        target.storeBytes(of: Self.magic.littleEndian, toByteOffset: 0, as: UInt64.self)
        target.storeBytes(of: Self.version.littleEndian, toByteOffset: 8, as: UInt32.self)
        target.storeBytes(of: UInt32(Self.bytes).littleEndian, toByteOffset: 12, as: UInt32.self)
        target.storeBytes(of: boot.littleEndian, toByteOffset: 16, as: UInt64.self)
        target.storeBytes(of: steady.littleEndian, toByteOffset: 24, as: Int64.self)
        target.storeBytes(of: wall.littleEndian, toByteOffset: 32, as: Int64.self)
        target.storeBytes(of: time.littleEndian, toByteOffset: 40, as: Int64.self)
        let sum = checksum(UnsafeRawBufferPointer(rebasing: target[..<Self.checksumOffset]))
        target.storeBytes(of: sum.littleEndian, toByteOffset: Self.checksumOffset, as: UInt64.self)
    }

    /// Nil unless these are the intact bytes of a mark that makes sense.
    static func parse(_ source: UnsafeRawBufferPointer) -> TimeMark? {
        guard source.count >= bytes else { return nil }
        func load<T: FixedWidthInteger>(_ at: Int, as type: T.Type = T.self) -> T {
            T(littleEndian: source.loadUnaligned(fromByteOffset: at, as: T.self))
        }
        let sum = checksum(UnsafeRawBufferPointer(rebasing: source[..<checksumOffset]))
        guard load(0, as: UInt64.self) == magic, load(checksumOffset) == sum, load(8, as: UInt32.self) == version
        else { return nil }
        let mark = TimeMark(boot: load(16), steady: load(24), wall: load(32), time: load(40))
        let isSane = 0..<limit ~= mark.steady && 0..<limit / 1000 ~= mark.wall && 0..<limit ~= mark.time
        return isSane ? mark : nil
    }
}
