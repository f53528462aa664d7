import CXXHash
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Raw blocks: wrapped straight into place, and written and checked in one pass.
@Suite struct RawPageTests {
    private static let geometry = try! Geometry(
        tensors: (0..<3).flatMap { layer in
            [
                TensorGeometry(layer: layer, role: .key, heads: 6, headDim: 40),
                TensorGeometry(layer: layer, role: .value, heads: 6, headDim: 40),
            ]
        })

    private static let layouts = PageLayout.Order.allCases.flatMap { order in
        PageLayout.Grouping.allCases.map { PageLayout(element: .bf16, order: order, grouping: $0) }
    }

    private func page(_ layout: PageLayout, tokens: Int, seed: UInt64) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        let count = layout.pageBytes(geometry: Self.geometry, tokens: tokens)
        return (0..<count).map { $0 % 2 == 1 ? 0x3F : UInt8.random(in: 0...255, using: &generator) }
    }

    // One row; less than a stretch; several stretches and a part of one.
    @Test(arguments: layouts, [1, 64, 1000])
    func writtenAndCheckedInOnePass(_ layout: PageLayout, _ tokens: Int) throws {
        let codec = try PageCodec(geometry: Self.geometry)
        let page = page(layout, tokens: tokens, seed: UInt64(tokens))
        let block = try page.withUnsafeBytes {
            try codec.wrap(page: $0, layout: layout, tokens: tokens, firstPosition: 7)
        }
        let decoder = codec.takeDecoder()
        defer { codec.giveBack(decoder) }
        for layers in [0..<3, 1..<2] {
            let size = layout.pageBytes(geometry: Self.geometry, tokens: tokens, layers: layers)
            var (fused, plain) = ([UInt8](repeating: 0, count: size), [UInt8](repeating: 1, count: size))
            let sum = try block.withUnsafeBytes { bytes in
                try decoder.open(bytes)
                try plain.withUnsafeMutableBytes { try decoder.write(layers: layers, layout: layout, into: $0) }
                return try fused.withUnsafeMutableBytes {
                    try decoder.writeRaw(layers: layers, layout: layout, pastCaches: tokens > 1, into: $0)
                }
            }
            #expect(fused == plain)
            #expect(layers.count == 1 || fused == page)
            #expect(sum == block.withUnsafeBytes { xxh3($0.baseAddress, $0.count, 0) })
            try block.withUnsafeBytes { bytes in
                try decoder.open(bytes)
                let isStored = layers.count == 3 && layout.order == .tokenTensorHead && layout.grouping == .rolesApart
                let stored = decoder.stored(layers: layers, layout: layout)
                #expect((stored != nil) == isStored)
                if let stored { #expect(Array(bytes[stored]) == fused) }
            }
        }
    }

    @Test func wrappingSaysWhatIsNotFinite() throws {
        let codec = try PageCodec(geometry: Self.geometry)
        for layout in Self.layouts {
            var page = page(layout, tokens: 300, seed: 3)
            var block = [UInt8](repeating: 0, count: codec.wrappedBytes(element: .bf16, tokens: 300))
            func wrap() throws -> Bool {
                try page.withUnsafeBytes { bytes in
                    try block.withUnsafeMutableBytes {
                        try codec.wrap(page: bytes, layout: layout, tokens: 300, firstPosition: 0, into: $0).isFinite
                    }
                }
            }
            #expect(try wrap())
            // The last element: an infinity.
            page[page.count - 2] = 0x80
            page[page.count - 1] = 0x7F
            #expect(try !wrap())
            #expect(try block.withUnsafeBytes { try BlockHeader.parse($0, isVerified: true) }.tokens == 300)
        }
    }

    // One row, and several stretches.
    @Test(arguments: [1, 300]) func aBlockWithoutItsOwnChecksumIsBelievedWithAnother(tokens: Int) throws {
        let codec = try PageCodec(geometry: Self.geometry)
        let layout = PageLayout(element: .bf16)
        let page = page(layout, tokens: tokens, seed: 4)
        var block = [UInt8](repeating: 0, count: codec.wrappedBytes(element: .bf16, tokens: tokens))
        let wrapped = try page.withUnsafeBytes { page in
            try block.withUnsafeMutableBytes {
                try codec.wrap(page: page, layout: layout, tokens: tokens, firstPosition: 0, into: $0)
            }
        }
        #expect(wrapped.checksum == block.withUnsafeBytes { xxh3($0.baseAddress, $0.count, 0) })
        #expect(throws: CodecError.self) { try block.withUnsafeBytes { try BlockHeader.parse($0) } }
        let coded = try block.withUnsafeBytes {
            try codec.encode(
                block: $0, isVerified: true, mode: .lossless, quality: .ratio(1), protected: RowSet(count: tokens))
        }
        var back = [UInt8](repeating: 0, count: page.count)
        try coded.withUnsafeBytes { coded in
            try back.withUnsafeMutableBytes {
                try codec.decode(block: coded, layers: 0..<3, layout: layout, into: $0)
            }
        }
        #expect(back == page)
    }

    @Test func aHeaderAloneCanBeTrustedOnlyWhenSaid() throws {
        let codec = try PageCodec(geometry: Self.geometry)
        let layout = PageLayout(element: .bf16)
        var block = try page(layout, tokens: 16, seed: 5).withUnsafeBytes {
            try codec.wrap(page: $0, layout: layout, tokens: 16, firstPosition: 0)
        }
        block[block.count - 1] ^= 1
        #expect(throws: CodecError.self) { try block.withUnsafeBytes { try BlockHeader.parse($0) } }
        _ = try block.withUnsafeBytes { try BlockHeader.parse($0, isVerified: true) }
        block[60] ^= 1
        #expect(throws: CodecError.self) { try block.withUnsafeBytes { try BlockHeader.parse($0, isVerified: true) } }
    }
}
