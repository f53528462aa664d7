import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// What all coders of rows have to do alike.
@Suite struct RowCoderTests {
    @Test(arguments: Mode.allCases) func modesThatNeedAProfileSayThatItIsMissing(mode: Mode) throws {
        let real = try RealPages.shared.get()
        let codec = try PageCodec(geometry: real.profile.geometry)
        let raw = try real.raw(real.pages[1])
        guard mode.needsProfile else {
            let head = try header(try encoded(codec, raw, mode, .ratio(8)))
            #expect(head.mode == mode && head.profile == nil)
            return
        }
        let missing = CodecError.unsupported("this mode needs a profile; calibrate one, or use lossless")
        #expect(throws: missing) { try encoded(codec, raw, mode, .ratio(8)) }
    }

    /// All rows of such a block are protected, so that there is none for its coded section.
    @Test func aPublishedSectionWithoutRowsIsCorrupt() throws {
        let real = try RealPages.shared.get()
        let codec = try real.codec()
        let raw = try real.raw(real.pages[1])
        let exact = try encoded(codec, raw, .lossless, .ratio(1))
        let rows = exact[try header(exact).codedSection]
        let groupings = [UInt8](repeating: 0, count: 4 * real.profile.metadata.bases.count)
        // LZ4, no groups, no payload.
        let section = [1, 0, 0, 0, UInt8(groupings.count), 0, 0, 0, 0, 0, 0, 0] + groupings + [0]
        var block = Array(try encoded(codec, raw, .kvtc, .ratio(8))[..<BlockHeader.size])
        block += [UInt8](repeating: 0xFF, count: RealPages.tokens / 8) + rows + section
        block.withUnsafeMutableBytes { bytes in
            let counts = [RealPages.tokens, RealPages.tokens / 8, rows.count, section.count]
            for (offset, count) in zip([60, 76, 80, 84], counts) {
                bytes.storeBytes(of: UInt32(count).littleEndian, toByteOffset: offset, as: UInt32.self)
            }
        }
        reseal(&block)
        #expect(try header(block).protected.count == RealPages.tokens)
        #expect(throws: CodecError.corrupt("a coded section without rows")) {
            try decoded(codec, block, RealPages.layout, tokens: RealPages.tokens)
        }
    }
}
