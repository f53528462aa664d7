import CDeflate

/// DEFLATE (RFC 1951) of whole buffers.
enum Deflate {
    static func compress(_ bytes: [UInt8], level: Int32) -> [UInt8] {
        guard let compressor = libdeflate_alloc_compressor(level) else { preconditionFailure("out of memory") }
        defer { libdeflate_free_compressor(compressor) }
        let bound = libdeflate_deflate_compress_bound(compressor, bytes.count)
        return [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
            count = libdeflate_deflate_compress(compressor, bytes, bytes.count, buffer.baseAddress, bound)
        }
    }

    /// Nil unless the stream unpacks to exactly `bytes`.
    static func decompress(_ packed: UnsafeRawBufferPointer, bytes: Int) -> [UInt8]? {
        var done = false
        let result = [UInt8](unsafeUninitializedCapacity: bytes) { buffer, count in
            done = InflateState().decompress(packed, into: UnsafeMutableRawBufferPointer(buffer))
            count = done ? bytes : 0
        }
        return done ? result : nil
    }
}

/// libdeflate's decompressor, used for one stream after another.
final class InflateState {
    private let decompressor: OpaquePointer

    init() {
        guard let decompressor = libdeflate_alloc_decompressor() else { preconditionFailure("out of memory") }
        self.decompressor = decompressor
    }

    deinit { libdeflate_free_decompressor(decompressor) }

    /// Whether the stream unpacks to exactly the size of `target`.
    func decompress(_ packed: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Bool {
        libdeflate_deflate_decompress(
            decompressor, packed.baseAddress, packed.count, target.baseAddress, target.count, nil)
            == LIBDEFLATE_SUCCESS
    }
}
