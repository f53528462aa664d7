import CKernels
import KVTCModel

/// What a block holds once its symbols are decoded, before a page is made of it: rows of elements, and codes of the others.
///
/// It keeps its memory from block to block.
package final class DecodedPage: @unchecked Sendable {
    // Justified: one decoder has it, and decodes one block at a time into it; while parts of a page are written it is only read.

    /// Rows of elements, canonical, and which rows of the page they are, unless all. They lie in the block itself in `raw` mode.
    var exactRows: UnsafePointer<UInt8>?
    var exactCount = 0
    var exactTokens = Scratch<UInt32>()
    var exactBytes = Scratch<UInt8>()
    private var planes = Scratch<UInt8>()
    private let deflate = InflateState()

    /// Rows of codes, and which rows of the page they are.
    var codedCount = 0
    var codedTokens = Scratch<UInt32>()
    /// [component][coded row], basis after basis; a code counts ``BlockHeader/step``.
    var codes = Scratch<Int16>()
    /// Magnitude of the largest code of each component.
    var largest = Scratch<UInt16>()
    /// The components of each basis.
    var components: [Range<Int>]
    /// Of the step, where it says which second digits of the basis matter; nil: all do.
    var stepIndex: Int?
    /// How each component is coded: of chunks that are still to be decoded, and of a stream.
    var coded = Scratch<kv_rans_component>()
    var chunks = Scratch<kv_rans_chunk>()
    var chunkCount = 0
    var streams = Scratch<kv_component>()

    /// Components of the coded section, those of cut groups included; those that are coded.
    package internal(set) var rank = 0, active = 0

    init(bases: Int) { components = [Range<Int>](repeating: 0..<0, count: bases) }

    var byteCount: Int {
        exactBytes.byteCount + planes.byteCount + codes.byteCount + coded.byteCount + chunks.byteCount
            + streams.byteCount
    }

    /// Finds the rows of elements, and tells which rows are left for codes.
    func openExact(_ block: UnsafeRawBufferPointer, _ header: BlockHeader) throws(CodecError) {
        (exactCount, codedCount) = (0, 0)
        let protected = UnsafeRawBufferPointer(rebasing: block[header.protectedSection])
        let coded = UnsafeRawBufferPointer(rebasing: block[header.codedSection])
        guard !header.mode.isExact else {
            guard header.bitmapBytes == 0, protected.isEmpty else {
                throw .corrupt("an exact block with protected rows")
            }
            exactCount = header.tokens
            guard header.mode == .raw else { return try unpack(coded, header) }
            guard coded.count == header.rawBytes else { throw .corrupt("raw section of \(coded.count) bytes") }
            exactRows = coded.bindMemory(to: UInt8.self).baseAddress!
            return
        }
        let (codedRows, exactRows) = (codedTokens.reserve(header.tokens), exactTokens.reserve(header.tokens))
        for row in 0..<header.tokens {
            if header.protected.contains(row) {
                exactRows[exactCount] = UInt32(row)
                exactCount += 1
            } else {
                codedRows[codedCount] = UInt32(row)
                codedCount += 1
            }
        }
        try unpack(protected, header)
    }

    private func unpack(_ section: UnsafeRawBufferPointer, _ header: BlockHeader) throws(CodecError) {
        let size = exactCount * header.rowElements * header.element.bytes
        let rows = exactBytes.reserve(size)
        exactRows = UnsafePointer(rows)
        try Lossless.decode(
            section, rows: exactCount, bytesPerElement: header.element.bytes,
            into: UnsafeMutableRawBufferPointer(start: rows, count: size), scratch: &planes, inflate: deflate)
    }

    /// The codes of one chunk; false where its words are not what was coded. Chunks touch nothing that another one does.
    func decodeChunk(_ index: Int, _ kernels: KernelTable) -> Bool {
        kernels.pointer.pointee.rans.decode(chunks.base + index, codes.base, largest.base) == 0
    }

    /// Puts whole rows in the place of codes: `fill` is given each coded row's number among them and its memory.
    func replaceCodes(_ header: BlockHeader, _ fill: (Int, UnsafeMutablePointer<UInt8>) -> Void) {
        let rowBytes = header.rowElements * header.element.bytes
        var page = Scratch<UInt8>()
        let rows = page.reserve(header.rawBytes)
        for index in 0..<exactCount {
            (rows + Int(exactTokens.base[index]) * rowBytes).update(
                from: exactRows! + index * rowBytes, count: rowBytes)
        }
        for index in 0..<codedCount { fill(index, rows + Int(codedTokens.base[index]) * rowBytes) }
        swap(&exactBytes, &page)
        exactRows = UnsafePointer(rows)
        (exactCount, codedCount) = (header.tokens, 0)
    }
}
