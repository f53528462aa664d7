import CLZ4

/// The packed bytes of a `kvtc` section, compressed.
enum PublishedPayload {
    /// DEFLATE, or LZ4 where it comes within 3 %: it unpacks several times faster.
    static func compress(_ payload: [UInt8]) -> (method: UInt8, bytes: [UInt8]) {
        let deflated = Deflate.compress(payload, level: 6)
        let lz4 = [UInt8](unsafeUninitializedCapacity: Int(LZ4_compressBound(Int32(payload.count)))) { buffer, count in
            count = payload.withUnsafeBytes {
                Int(
                    LZ4_compress_default(
                        $0.bindMemory(to: CChar.self).baseAddress,
                        UnsafeMutableRawBufferPointer(buffer).bindMemory(to: CChar.self).baseAddress,
                        Int32($0.count), Int32(buffer.count)))
            }
        }
        return lz4.count * 100 <= deflated.count * 103 ? (1, lz4) : (2, deflated)
    }

    static func decompress(
        _ packed: UnsafeRawBufferPointer, method: UInt8, bytes: Int
    ) throws(CodecError) -> [UInt8] {
        switch method {
        case 1 where packed.count <= Int(Int32.max) && bytes <= Int(Int32.max):
            var written: Int32 = -1
            let payload = [UInt8](unsafeUninitializedCapacity: bytes) { buffer, count in
                written = LZ4_decompress_safe(
                    packed.bindMemory(to: CChar.self).baseAddress,
                    UnsafeMutableRawBufferPointer(buffer).bindMemory(to: CChar.self).baseAddress, Int32(packed.count),
                    Int32(bytes))
                count = max(0, Int(written))
            }
            guard payload.count == bytes else { throw .corrupt("compressed payload") }
            return payload
        case 2:
            guard let payload = Deflate.decompress(packed, bytes: bytes) else { throw .corrupt("compressed payload") }
            return payload
        default: throw .corrupt("compression method \(method)")
        }
    }
}
