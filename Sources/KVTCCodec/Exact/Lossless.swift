import CKernels
import CLZ4
import Glibc

/// Byte planes through LZ4 or DEFLATE: exact for every bit pattern of every element type.
///
/// Section: per plane {u32 length, u8 method} then the bytes, lowest byte plane first. Methods: 0 stored, 1 LZ4 block, 2 DEFLATE
/// of the plane column by column, which puts the exponents of one channel side by side.
enum Lossless {
    private static let stored: UInt8 = 0
    private static let lz4: UInt8 = 1
    private static let deflate: UInt8 = 2

    /// - Parameter elements: `rows` rows of equal length, little-endian.
    static func encode(_ elements: UnsafeRawBufferPointer, rows: Int, bytesPerElement: Int) -> [UInt8] {
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
            let (method, packed) = pack(Array(planes[plane * count..<(plane + 1) * count]), rows: rows)
            withUnsafeBytes(of: UInt32(packed.count).littleEndian) { section.append(contentsOf: $0) }
            section.append(method)
            section += packed
        }
        return section
    }

    /// LZ4 unless DEFLATE saves a twentieth more; as it is where neither saves a fiftieth.
    private static func pack(_ plane: [UInt8], rows: Int) -> (method: UInt8, bytes: [UInt8]) {
        // Mantissas are noise: no coder gets anything out of them, so none gets the time.
        guard entropy(plane) < 7.9 else { return (stored, plane) }
        let quick = compress(plane)
        var turned = [UInt8](repeating: 0, count: plane.count)
        kv_transpose(plane, rows, plane.count / rows, &turned)
        let small = Deflate.compress(turned, level: 3)
        if small.count * 20 < quick.count * 19, small.count * 50 < plane.count * 49 { return (deflate, small) }
        return quick.count * 50 < plane.count * 49 ? (lz4, quick) : (stored, plane)
    }

    /// Bits a byte, order 0.
    private static func entropy(_ bytes: [UInt8]) -> Double {
        var counts = [Int](repeating: 0, count: 256)
        for byte in bytes { counts[Int(byte)] += 1 }
        return counts.reduce(0) { $0 - ($1 > 0 ? Double($1) * log2(Double($1) / Double(bytes.count)) : 0) }
            / Double(bytes.count)
    }

    /// - Parameter scratch: takes the planes, and one more while its columns are turned.
    static func decode(
        _ section: UnsafeRawBufferPointer, rows: Int, bytesPerElement: Int,
        into elements: UnsafeMutableRawBufferPointer,
        scratch: inout Scratch<UInt8>, inflate: InflateState
    ) throws(CodecError) {
        let count = elements.count / bytesPerElement
        guard count > 0 else {
            guard section.isEmpty else { throw .corrupt("bytes after the last plane") }
            return
        }
        let planes = scratch.reserve(elements.count + count)
        let turned = UnsafeMutableRawBufferPointer(start: planes + elements.count, count: count)
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
            let target = UnsafeMutableRawBufferPointer(start: planes + plane * count, count: count)
            guard unpack(source, method: method, rows: rows, into: target, turned: turned, inflate: inflate) else {
                throw .corrupt("plane \(plane) does not unpack to \(count) bytes")
            }
            offset += length
        }
        guard offset == section.count else { throw .corrupt("bytes after the last plane") }
        kv_join_planes(planes, count, bytesPerElement, elements.bindMemory(to: UInt8.self).baseAddress)
    }

    private static func unpack(
        _ source: UnsafeRawBufferPointer, method: UInt8, rows: Int, into target: UnsafeMutableRawBufferPointer,
        turned: UnsafeMutableRawBufferPointer, inflate: InflateState
    ) -> Bool {
        switch method {
        case stored where source.count == target.count:
            target.copyMemory(from: source)
            return true
        case lz4 where source.count <= Int(Int32.max) && target.count <= Int(Int32.max):
            let written = LZ4_decompress_safe(
                source.bindMemory(to: CChar.self).baseAddress, target.bindMemory(to: CChar.self).baseAddress,
                Int32(source.count), Int32(target.count))
            return Int(written) == target.count
        case deflate:
            guard inflate.decompress(source, into: turned) else { return false }
            kv_transpose(
                turned.bindMemory(to: UInt8.self).baseAddress, target.count / rows, rows,
                target.bindMemory(to: UInt8.self).baseAddress)
            return true
        default: return false
        }
    }

    /// The plane itself where LZ4 can't take it.
    private static func compress(_ bytes: [UInt8]) -> [UInt8] {
        let bound = bytes.count <= Int(LZ4_MAX_INPUT_SIZE) ? Int(LZ4_compressBound(Int32(bytes.count))) : 0
        guard bound > 0 else { return bytes }
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
