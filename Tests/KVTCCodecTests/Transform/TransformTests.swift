import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@Suite struct TransformTests {
    let real: RealPages

    init() throws { real = try RealPages.shared.get() }

    @Test(arguments: [Mode.transform, .kvtc], [Float(4), 8, 16])
    func ratioIsMetAndNearlyUsed(mode: Mode, ratio: Float) throws {
        let codec = try real.codec()
        for page in real.pages {
            let raw = try real.raw(page)
            let head = try header(try encoded(codec, raw, mode, .ratio(ratio)))
            #expect(head.mode == mode)
            let reached = Double(head.codedRawBytes) / Double(head.codedStoredBytes)
            #expect(reached >= Double(ratio))
            #expect(reached <= Double(ratio) * (mode == .kvtc ? 1.25 : 1.04))
        }
    }

    @Test(arguments: [Mode.transform, .kvtc], [Float(0.3), 0.1, 0.03])
    func distortionBoundHolds(mode: Mode, bound: Float) throws {
        let codec = try real.codec()
        var previous = 0
        for bound in [bound, bound / 2] {
            let head = try header(try encoded(codec, try real.raw(real.pages[5]), mode, .distortion(bound)))
            guard head.mode == mode else { continue }
            #expect(head.distortion <= bound)
            #expect(head.blockBytes > previous)
            previous = head.blockBytes
        }
    }

    @Test func halfTheErrorOfThePublishedPipelineAtTheSameRatio() throws {
        // Unweighted bases for the published mode, so that both are judged on what they minimise.
        var (ours, theirs) = (0.0, 0.0)
        for page in real.pages {
            let raw = try real.raw(page)
            let published = try real.codec(profile: real.published)
            for (codec, mode) in [(published, Mode.transform), (published, .kvtc)] {
                let block = try encoded(codec, raw, mode, .ratio(8))
                let output = try decoded(codec, block, RealPages.layout, tokens: 64)
                let error = relativeError(page.bytes, output)
                if mode == .transform { ours += error } else { theirs += error }
            }
        }
        #expect(ours < 0.8 * theirs)
    }

    @Test(arguments: [Mode.transform, .kvtc]) func protectedRowsAreExactAndTheOthersClose(mode: Mode) throws {
        let codec = try real.codec()
        let page = real.pages[0]
        let kept = [0, 1, 2, 3, 31, 63]
        let block = try encoded(codec, try real.raw(page), mode, .ratio(8), protected: kept)
        let output = try decoded(codec, block, RealPages.layout, tokens: 64)
        let rowBytes = page.bytes.count / 64
        for row in 0..<64 {
            let range = row * rowBytes..<(row + 1) * rowBytes
            if kept.contains(row) {
                #expect(output[range] == page.bytes[range])
            } else {
                #expect(output[range] != page.bytes[range])
            }
        }
        #expect(relativeError(page.bytes, output) < 0.2)
    }

    @Test(arguments: [Mode.transform, .kvtc]) func everyTierAndLayerRangeDecodesTheSameBits(mode: Mode) throws {
        let best = try real.codec()
        for (index, tokens) in [64, 63, 17, 1].enumerated() {
            let page = real.pages[index]
            let part = Array(page.bytes[..<(page.bytes.count / 64 * tokens)])
            let raw = try part.withUnsafeBytes {
                try best.wrap(page: $0, layout: RealPages.layout, tokens: tokens, firstPosition: page.position)
            }
            let block = try encoded(best, raw, mode, .ratio(4), protected: tokens > 2 ? [1] : [], tokens: tokens)
            let layout = PageLayout(element: .f16, grouping: .layerPairs)
            let whole = try decoded(best, block, layout, tokens: tokens)
            for tier in KernelTable.all {
                #expect(try decoded(try real.codec(tier), block, layout, tokens: tokens) == whole)
            }
            let layers = try [0..<1, 1..<2].map { try decoded(best, block, layout, tokens: tokens, layers: $0) }
            #expect(Array(layers.joined()) == whole)
        }
    }

    @Test func wildRowsAreKeptExact() throws {
        let codec = try real.codec()
        var page = real.pages[2].bytes
        let rowBytes = page.count / 64
        // A NaN, an infinity, and a finite row far beyond anything calibrated.
        for (row, value) in [(5, UInt16(0x7E00)), (6, 0xFC00)] {
            page[row * rowBytes + 10] = UInt8(value & 255)
            page[row * rowBytes + 11] = UInt8(value >> 8)
        }
        for index in stride(from: 7 * rowBytes, to: 8 * rowBytes, by: 2) {
            (page[index], page[index + 1]) = (0xFF, index % 4 == 0 ? 0x7B : 0xFB)
        }
        let raw = try page.withUnsafeBytes {
            try codec.wrap(page: $0, layout: RealPages.layout, tokens: 64, firstPosition: 100)
        }
        let block = try encoded(codec, raw, .transform, .distortion(0.01))
        let head = try header(block)
        for row in [5, 6, 7] { #expect(head.mode.isExact || head.protected.contains(row)) }
        let output = try decoded(codec, block, RealPages.layout, tokens: 64)
        #expect(output[5 * rowBytes..<8 * rowBytes] == page[5 * rowBytes..<8 * rowBytes])
    }

    @Test(arguments: [Mode.transform, .kvtc, .quant4, .lossless])
    func hostileBlocksWithGoodChecksumsNeverCrash(mode: Mode) throws {
        let codec = try real.codec()
        let block = try encoded(codec, try real.raw(real.pages[1]), mode, .ratio(8), protected: [0])
        let seed: UInt64 = 41
        print("hostile blocks: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            var bad = block
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                // Mostly in the section headers, where lengths are.
                let index =
                    Bool.random(using: &random)
                    ? Int.random(in: BlockHeader.size..<BlockHeader.size + 40, using: &random)
                    : Int.random(in: 4..<bad.count, using: &random)
                bad[index] = UInt8.random(in: 0...255, using: &random)
            }
            reseal(&bad)
            // Either an error or 64 rows of something: never a trap.
            _ = try? decoded(codec, bad, RealPages.layout, tokens: 64)
        }
    }

    @Test func anotherProfilesBlockIsAMismatch() throws {
        let block = try encoded(try real.codec(), try real.raw(real.pages[1]), .transform, .ratio(8))
        let other = try real.codec(profile: real.published)
        #expect(throws: CodecError.self) { try decoded(other, block, RealPages.layout, tokens: 64) }
        let none = try PageCodec(geometry: real.profile.geometry)
        #expect(throws: CodecError.self) { try decoded(none, block, RealPages.layout, tokens: 64) }
        #expect(throws: CodecError.self) {
            try encoded(none, try real.raw(real.pages[1]), .transform, .ratio(8))
        }
    }
}
