import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Finite values that no cache has, but that a client may send: the rows that hold them come back exactly.
@Suite struct ExtremeValueTests {
    private let tokens = 8
    private let layout = PageLayout(element: .f32, order: .tokenTensorHead)

    @Test(arguments: [Mode.transform, .kvtc], [Float(1e25), -3e38])
    func rowsOfImmenseValuesStayExact(mode: Mode, value: Float) throws {
        let codec = try RealPages.shared.get().codec()
        let width = codec.geometry.rowElements
        var generator = SeededGenerator(seed: 9)
        var page = (0..<tokens * width).map { _ in Float.random(in: -1...1, using: &generator) }
        for index in 0..<width where index % 7 == 0 { page[2 * width + index] = value }
        page[5 * width] = value
        let bytes = page.withUnsafeBytes { [UInt8]($0) }
        let raw = try bytes.withUnsafeBytes {
            try codec.wrap(page: $0, layout: layout, tokens: tokens, firstPosition: 0)
        }
        let block = try encoded(codec, raw, mode, .ratio(4), tokens: tokens)
        let back = try decoded(codec, block, layout, tokens: tokens)
        let rowBytes = width * 4
        for row in [2, 5] {
            let range = row * rowBytes..<(row + 1) * rowBytes
            #expect(bytes[range] == back[range], "row \(row)")
        }
        #expect(back.withUnsafeBytes { $0.bindMemory(to: Float.self).allSatisfy(\.isFinite) })
    }
}
