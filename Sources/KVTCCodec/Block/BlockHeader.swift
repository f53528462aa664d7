import CXXHash
import KVTCModel

/// The 104 bytes at the start of every block; `BlockFormat.md` lists them.
public struct BlockHeader: Hashable, Sendable {
    /// Bytes of the fixed header.
    public static let size = 104
    /// Positions end here, so that sums of them fit wherever they are used.
    static let largestPosition = Int(Int32.max)
    static let magic: UInt32 = 0x4254_564B  // "KVTB"
    static let versions: ClosedRange<UInt16> = 1...2

    /// Which form the coded section has where a mode has had several; a block is of the first version that has its form.
    public var version: UInt16 = 1
    /// How the coded section is to be read.
    public var mode: Mode
    /// Number format of the page.
    public var element: Element
    /// The profile that decoding needs.
    public var profile: ProfileID?
    /// XXH3-64 of the page's geometry.
    public var geometryHash: UInt64
    /// Rows of the page.
    public var tokens: Int
    /// Position of the page's first token.
    public var firstPosition: Int
    /// Elements of a row.
    public var rowElements: Int
    /// Rows kept bit-identical beside the coded ones; empty in exact modes.
    public var protected: RowSet
    /// Quantiser step in the weighted domain, 0 where the mode has none.
    public var step: Float
    /// Squared error of the coded rows over their expected energy as measured while encoding; 0 in exact modes.
    public var distortion: Float
    var bitmapBytes: Int
    var protectedBytes: Int
    package var codedBytes: Int

    /// Where the protected rows lie in the block, and the coded ones; of an exact block all rows are in the coded section.
    package var protectedSection: Range<Int> { BlockHeader.size + bitmapBytes..<blockBytes - codedBytes }
    package var codedSection: Range<Int> { blockBytes - codedBytes..<blockBytes }
    /// Bytes of the page before coding.
    public var rawBytes: Int { tokens * rowElements * element.bytes }
    /// Bytes of the whole block.
    public var blockBytes: Int { BlockHeader.size + bitmapBytes + protectedBytes + codedBytes }
    /// Raw bytes of the rows that are coded, not protected.
    public var codedRawBytes: Int { mode.isExact ? 0 : (tokens - protected.count) * rowElements * element.bytes }
    /// Bytes that those rows take, the block's header included.
    public var codedStoredBytes: Int { mode.isExact ? 0 : blockBytes - protectedBytes }

    /// Reads and checks a block: magic, version, limits, section lengths and both checksums.
    /// - Parameter isVerified: whether the caller has a checksum of its own over the whole block, which makes the one
    ///   over the payload superfluous.
    public static func parse(
        _ block: UnsafeRawBufferPointer, isVerified: Bool = false
    ) throws(CodecError) -> BlockHeader {
        guard block.count >= size else { throw .corrupt("block of \(block.count) bytes; a header has \(size)") }
        func word<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
            T(littleEndian: block.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        guard word(0, UInt32.self) == magic else { throw .corrupt("no block magic") }
        guard word(96, UInt64.self) == xxh3(block.baseAddress, 96, 0) else { throw .corrupt("header checksum") }
        let version = word(4, UInt16.self)
        guard versions.contains(version) else {
            throw .unsupported("block version \(version); this release reads versions 1 and 2")
        }
        guard let mode = Mode(rawValue: block[6]), let element = Element(rawValue: block[7]) else {
            throw .corrupt("mode \(block[6]) or element type \(block[7])")
        }
        let tokens = Int(word(48, UInt32.self))
        let rowElements = Int(word(56, UInt32.self))
        guard (1...65536).contains(tokens), (1...Geometry.maximumRowElements).contains(rowElements) else {
            throw .corrupt("\(tokens) tokens of \(rowElements) elements")
        }
        let firstPosition = Int(word(52, UInt32.self))
        guard firstPosition <= largestPosition - tokens else { throw .corrupt("first position \(firstPosition)") }
        let bitmapBytes = Int(word(76, UInt32.self))
        let protectedBytes = Int(word(80, UInt32.self))
        let codedBytes = Int(word(84, UInt32.self))
        guard size + bitmapBytes + protectedBytes + codedBytes == block.count else {
            throw .corrupt("sections do not add up to the block's \(block.count) bytes")
        }
        let payload = UnsafeRawBufferPointer(rebasing: block[size...])
        guard isVerified || word(88, UInt64.self) == xxh3(payload.baseAddress, payload.count, 0) else {
            throw .corrupt("payload checksum")
        }
        var protected = RowSet(count: tokens)
        if bitmapBytes > 0 {
            guard let rows = RowSet(count: tokens, bitmap: UnsafeRawBufferPointer(rebasing: payload[..<bitmapBytes])),
                rows.count == Int(word(60, UInt32.self))
            else { throw .corrupt("protected-row bitmap") }
            protected = rows
        } else if word(60, UInt32.self) != 0 {
            throw .corrupt("protected rows without a bitmap")
        }
        let profile = ProfileID(UnsafeRawBufferPointer(rebasing: block[8..<40]))
        return BlockHeader(
            version: version, mode: mode, element: element, profile: profile == .absent ? nil : profile,
            geometryHash: word(40, UInt64.self), tokens: tokens, firstPosition: firstPosition,
            rowElements: rowElements, protected: protected, step: Float(bitPattern: word(64, UInt32.self)),
            distortion: Float(bitPattern: word(68, UInt32.self)), bitmapBytes: bitmapBytes,
            protectedBytes: protectedBytes, codedBytes: codedBytes)
    }

    /// The whole block: header, bitmap, protected section, coded section. Lengths in `self` are overwritten.
    func assemble(protectedSection: [UInt8], codedSection: [UInt8]) -> [UInt8] {
        let bitmap = protected.isEmpty ? [] : protected.bitmap
        var header = self
        header.bitmapBytes = bitmap.count
        header.protectedBytes = protectedSection.count
        header.codedBytes = codedSection.count
        var block = [UInt8](repeating: 0, count: BlockHeader.size)
        block.reserveCapacity(header.blockBytes)
        block.append(contentsOf: bitmap)
        block.append(contentsOf: protectedSection)
        block.append(contentsOf: codedSection)
        block.withUnsafeMutableBytes { bytes in
            let payload = xxh3(bytes.baseAddress! + BlockHeader.size, bytes.count - BlockHeader.size, 0)
            header.write(to: bytes, payloadChecksum: payload)
        }
        return block
    }

    /// Puts the payload's checksum, and with it the header's, into a block that was written without.
    static func seal(_ block: UnsafeMutableRawBufferPointer) {
        let payload = xxh3(block.baseAddress! + size, block.count - size, 0)
        block.storeBytes(of: payload.littleEndian, toByteOffset: 88, as: UInt64.self)
        block.storeBytes(of: xxh3(block.baseAddress!, 96, 0).littleEndian, toByteOffset: 96, as: UInt64.self)
    }

    /// Writes the fixed header to the start of a block whose sections have the lengths in `self`.
    func write(to block: UnsafeMutableRawBufferPointer, payloadChecksum: UInt64) {
        var offset = 0
        func append<T: FixedWidthInteger>(_ value: T) {
            block.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
            offset += MemoryLayout<T>.size
        }
        append(BlockHeader.magic)
        append(version)
        append(mode.rawValue)
        append(element.rawValue)
        for byte in (profile ?? .absent).bytes { append(byte) }
        append(geometryHash)
        for value in [tokens, firstPosition, rowElements, protected.count] { append(UInt32(value)) }
        append(step.bitPattern)
        append(distortion.bitPattern)
        append(UInt32(0))
        for value in [bitmapBytes, protectedBytes, codedBytes] { append(UInt32(value)) }
        append(payloadChecksum)
        append(xxh3(block.baseAddress!, 96, 0))
    }
}
