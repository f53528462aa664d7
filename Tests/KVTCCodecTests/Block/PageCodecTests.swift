import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// A small geometry with keys and values of different widths and every rotary style.
func smallGeometry(layers: Int = 3, heads: Int = 2, keyDim: Int = 8, valueDim: Int = 8) throws -> Geometry {
    try Geometry(
        tensors: (0..<layers).flatMap { layer -> [TensorGeometry] in
            let rotary =
                layer % 3 == 2
                ? nil
                : Rotary(style: layer % 2 == 0 ? .interleaved : .halfSplit, offset: 2, dims: keyDim - 2, base: 10_000)
            return [
                TensorGeometry(layer: layer, role: .value, heads: heads, headDim: valueDim),
                TensorGeometry(layer: layer, role: .key, heads: heads, headDim: keyDim, rotary: rotary),
            ]
        })
}

func decoded(
    _ codec: PageCodec, _ block: [UInt8], _ layout: PageLayout, tokens: Int, layers: Range<Int>? = nil
) throws -> [UInt8] {
    let range = layers ?? 0..<codec.geometry.layers
    var output = [UInt8](
        repeating: 0, count: layout.pageBytes(geometry: codec.geometry, tokens: tokens, layers: range))
    try block.withUnsafeBytes { bytes in
        try output.withUnsafeMutableBytes { try codec.decode(block: bytes, layers: range, layout: layout, into: $0) }
    }
    return output
}

@Suite struct PageCodecTests {
    static var layouts: [PageLayout] {
        Element.allCases.flatMap { element in
            PageLayout.Order.allCases.flatMap { order in
                PageLayout.Grouping.allCases.flatMap { grouping in
                    [false, true].map {
                        PageLayout(element: element, order: order, grouping: grouping, valueTransposed: $0)
                    }
                }
            }
        }
    }

    @Test(arguments: PageCodecTests.layouts) func exactModesReturnEveryBit(layout: PageLayout) throws {
        let geometry = try smallGeometry()
        let codec = try PageCodec(geometry: geometry)
        guard (try? layout.validate(for: geometry)) != nil else {
            #expect(layout.valueTransposed)
            return
        }
        var random = SeededGenerator(seed: 11)
        for tokens in [1, 2, 15, 16, 17, 64] {
            let page = (0..<layout.pageBytes(geometry: geometry, tokens: tokens)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            let raw = try page.withUnsafeBytes {
                try codec.wrap(page: $0, layout: layout, tokens: tokens, firstPosition: 7)
            }
            #expect(try decoded(codec, raw, layout, tokens: tokens) == page)
            let packed = try raw.withUnsafeBytes {
                try codec.encode(
                    block: $0, mode: .lossless, quality: .ratio(1), protected: RowSet(count: tokens))
            }
            #expect(try decoded(codec, packed, layout, tokens: tokens) == page)
            // A page pushed in one layout comes back in any other with the same elements.
            let other = PageLayout(element: layout.element, order: .tensorTokenHead)
            let turned = try decoded(codec, packed, other, tokens: tokens)
            let again = try turned.withUnsafeBytes {
                try codec.wrap(page: $0, layout: other, tokens: tokens, firstPosition: 7)
            }
            #expect(again == raw)
        }
    }

    @Test(arguments: [PageLayout.Order.tensorTokenHead, .tensorHeadToken])
    func layerRangesAreThePartsOfTheWhole(order: PageLayout.Order) throws {
        let geometry = try smallGeometry(layers: 5)
        let codec = try PageCodec(geometry: geometry)
        let layout = PageLayout(element: .bf16, order: order, grouping: .layerPairs)
        var random = SeededGenerator(seed: 5)
        let page = (0..<layout.pageBytes(geometry: geometry, tokens: 16)).map { _ in
            UInt8.random(in: 0...255, using: &random)
        }
        let raw = try page.withUnsafeBytes { try codec.wrap(page: $0, layout: layout, tokens: 16, firstPosition: 0) }
        let parts = try [0..<1, 1..<4, 4..<5].map { try decoded(codec, raw, layout, tokens: 16, layers: $0) }.joined()
        #expect(Array(parts) == page)
    }

    @Test(arguments: [Mode.quant8, .quant4]) func quantisedRowsAreCloseAndProtectedRowsExact(mode: Mode)
        throws
    {
        let geometry = try smallGeometry(heads: 4, keyDim: 32, valueDim: 32)
        let codec = try PageCodec(geometry: geometry)
        let layout = PageLayout(element: .f32)
        var random = SeededGenerator(seed: 3)
        var values = (0..<geometry.rowElements * 16).map { _ in Float.random(in: -4...4, using: &random) }
        values[5] = .nan
        values[values.count - 1] = .infinity
        let page = values.withUnsafeBytes { [UInt8]($0) }
        let raw = try page.withUnsafeBytes { try codec.wrap(page: $0, layout: layout, tokens: 16, firstPosition: 0) }
        var kept = RowSet(count: 16)
        kept.insert(3)
        let block = try raw.withUnsafeBytes {
            try codec.encode(block: $0, mode: mode, quality: .ratio(1), protected: kept)
        }
        let header = try block.withUnsafeBytes { try BlockHeader.parse($0) }
        #expect(header.mode == mode)
        #expect(block.count < page.count / (mode == .quant8 ? 2 : 3))
        let output = try decoded(codec, block, PageLayout(element: .f32, order: .tokenTensorHead), tokens: 16)
        let exact = try decoded(codec, raw, PageLayout(element: .f32, order: .tokenTensorHead), tokens: 16)
        let rowBytes = geometry.rowElements * 4
        for row in header.protected.rows {
            #expect(output[row * rowBytes..<(row + 1) * rowBytes] == exact[row * rowBytes..<(row + 1) * rowBytes])
        }
        #expect(header.protected.contains(3))
        #expect(header.protected.count >= 2 && header.protected.count <= 3)
        let (a, b) = (output, exact)
        let worst = a.withUnsafeBytes { left in
            b.withUnsafeBytes { right in
                zip(left.bindMemory(to: Float.self), right.bindMemory(to: Float.self)).reduce(Float(0)) {
                    $1.1.isFinite ? max($0, abs($1.0 - $1.1)) : $0
                }
            }
        }
        #expect(worst <= (mode == .quant8 ? 4.0 / 127 : 4.0 / 7) * 0.51)
    }

    @Test func everyFlippedBitIsNoticed() throws {
        let codec = try PageCodec(geometry: try smallGeometry(layers: 1, heads: 1))
        let layout = PageLayout(element: .f16)
        let page = [UInt8](repeating: 1, count: layout.pageBytes(geometry: codec.geometry, tokens: 4))
        let raw = try page.withUnsafeBytes { try codec.wrap(page: $0, layout: layout, tokens: 4, firstPosition: 0) }
        for bit in 0..<raw.count * 8 {
            var bad = raw
            bad[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: CodecError.self) { try decoded(codec, bad, layout, tokens: 4) }
        }
        for length in 0..<raw.count {
            #expect(throws: CodecError.self) { try decoded(codec, Array(raw[..<length]), layout, tokens: 4) }
        }
    }

    @Test func anotherGeometrysBlockIsAMismatch() throws {
        let layout = PageLayout()
        let codec = try PageCodec(geometry: try smallGeometry())
        let other = try PageCodec(geometry: try smallGeometry(heads: 1))
        let page = [UInt8](repeating: 0, count: layout.pageBytes(geometry: codec.geometry, tokens: 1))
        let raw = try page.withUnsafeBytes { try codec.wrap(page: $0, layout: layout, tokens: 1, firstPosition: 0) }
        #expect(throws: CodecError.mismatch("the block is of another geometry")) {
            try decoded(other, raw, layout, tokens: 1)
        }
    }
}
