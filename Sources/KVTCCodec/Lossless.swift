import CKernels
import CLZ4

/// Byte planes through LZ4: exact for every bit pattern of every element type.
///
/// Section: per plane {u32 length, u8 method (0 stored, 1 LZ4 block)} then the bytes, lowest byte plane first.
enum Lossless {
    static func encode(_ elements: UnsafeRawBufferPointer, bytesPerElement: Int) -> [UInt8] {
        let count = elements.count / bytesPerElement
        guard count > 0 else { return [] }
        let planes = [UInt8](unsafeUninitializedCapacity: elements.count) { buffer, initialised in
            kv_split_planes(
                elements.bindMemory(to: UInt8.self).baseAddress, count, bytesPerElement, buffer.baseAddress)
            initialised = elements.count
        }
        var section: [UInt8] = []
        section.reserveCapacity(elements.count + 5 * bytesPerElement)
        for plane in 0..<bytesPerElement {
            let bytes = planes[plane * count..<(plane + 1) * count]
            let packed = compress(bytes)
            let stored = packed.isEmpty || packed.count >= count
            withUnsafeBytes(of: UInt32(stored ? count : packed.count).littleEndian) { section.append(contentsOf: $0) }
            section.append(stored ? 0 : 1)
            if stored { section.append(contentsOf: bytes) } else { section.append(contentsOf: packed) }
        }
        return section
    }

    static func decode(
        _ section: UnsafeRawBufferPointer, bytesPerElement: Int, into elements: UnsafeMutableRawBufferPointer
    ) throws(CodecError) {
        let count = elements.count / bytesPerElement
        guard count > 0 else { return }
        var planes = [UInt8](repeating: 0, count: elements.count)
        var offset = 0
        for plane in 0..<bytesPerElement {
            guard section.count - offset >= 5 else { throw .corrupt("plane \(plane) is missing") }
            let length = Int(UInt32(littleEndian: section.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
            let method = section[offset + 4]
            offset += 5
            guard length <= section.count - offset, length <= Int(Int32.max) else {
                throw .corrupt("plane \(plane) passes the end")
            }
            let source = UnsafeRawBufferPointer(rebasing: section[offset..<offset + length])
            let written = planes.withUnsafeMutableBytes { buffer -> Int in
                let target = UnsafeMutableRawBufferPointer(rebasing: buffer[plane * count..<(plane + 1) * count])
                if method == 0, length == count {
                    target.copyMemory(from: source)
                    return length
                }
                guard method == 1 else { return -1 }
                return Int(
                    LZ4_decompress_safe(
                        source.bindMemory(to: CChar.self).baseAddress,
                        target.bindMemory(to: CChar.self).baseAddress, Int32(length), Int32(count)))
            }
            guard written == count else { throw .corrupt("plane \(plane) does not unpack to \(count) bytes") }
            offset += length
        }
        guard offset == section.count else { throw .corrupt("bytes after the last plane") }
        kv_join_planes(planes, count, bytesPerElement, elements.bindMemory(to: UInt8.self).baseAddress)
    }

    /// Empty where LZ4 can't take the input.
    private static func compress(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        let bound = bytes.count <= Int(LZ4_MAX_INPUT_SIZE) ? Int(LZ4_compressBound(Int32(bytes.count))) : 0
        guard bound > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: bound) { buffer, initialised in
            initialised = bytes.withUnsafeBytes { source in
                Int(
                    LZ4_compress_default(
                        source.bindMemory(to: CChar.self).baseAddress,
                        UnsafeMutableRawBufferPointer(buffer).bindMemory(to: CChar.self).baseAddress,
                        Int32(source.count), Int32(bound)))
            }
        }
    }
}
