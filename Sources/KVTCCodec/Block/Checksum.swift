import CXXHash

/// XXH3-64 of bytes that come one after another: the checksum of blocks, and of what a store keeps. Used by one thread.
public final class Checksum {
    private let state: OpaquePointer

    /// The checksum of no bytes.
    public init() {
        state = XXH3_createState()
        XXH3_64bits_reset(state)
    }

    deinit { XXH3_freeState(state) }

    /// Goes on with these bytes.
    public func add(_ bytes: UnsafeRawBufferPointer) { xxh3_add(state, bytes.baseAddress, bytes.count) }

    /// The same, and copies them to memory of the same size on the way.
    package func add(_ bytes: UnsafeRawBufferPointer, copyingTo target: UnsafeMutableRawBufferPointer) {
        for range in Checksum.stretches(of: bytes.count, rowBytes: 1) {
            let stretch = UnsafeRawBufferPointer(rebasing: bytes[range])
            add(stretch)
            UnsafeMutableRawBufferPointer(rebasing: target[range]).copyMemory(from: stretch)
        }
    }

    /// Of all bytes so far.
    public var value: UInt64 { XXH3_64bits_digest(state) }

    /// A page's rows in stretches of a quarter of a usual second-level cache, so that the second look at one costs
    /// little.
    static func stretches(of rows: Int, rowBytes: Int) -> some Sequence<Range<Int>> {
        let step = max(1, (256 << 10) / max(1, rowBytes))
        return stride(from: 0, to: rows, by: step).lazy.map { $0..<min($0 + step, rows) }
    }
}
