import KVTCModel
import TestSupport
import Testing

@testable import KVTCCodec

@Suite struct OutlierTests {
    /// A page with one row's values (or keys) several times as strong as any that was calibrated on.
    private func page(strongRow: Int, keys: Bool, scale: Float, real: RealPages) -> (bytes: [UInt8], position: Int) {
        var page = real.pages[2]
        let width = page.bytes.count / 2 / RealPages.tokens
        for (index, half) in real.profile.geometry.halves.enumerated() where (index == 0) == keys {
            for column in half {
                let at = (strongRow * width + column) * 2
                let value = Float(Float16(bitPattern: UInt16(page.bytes[at]) | UInt16(page.bytes[at + 1]) << 8))
                let bits = Float16(value * scale).bitPattern
                (page.bytes[at], page.bytes[at + 1]) = (UInt8(bits & 255), UInt8(bits >> 8))
            }
        }
        return page
    }

    @Test(arguments: [true, false]) func aSinkThatIsNotAtTheStartStaysExact(keys: Bool) throws {
        let real = try RealPages.shared.get()
        let codec = try real.codec()
        let page = page(strongRow: 23, keys: keys, scale: 6, real: real)
        let raw = try real.raw(page)
        let block = try encoded(codec, raw, .transform, .ratio(8), protected: [0])
        #expect(try header(block).protected.rows == [0, 23])
        let output = try decoded(codec, block, RealPages.layout, tokens: 64)
        let rowBytes = page.bytes.count / 64
        #expect(output[23 * rowBytes..<24 * rowBytes] == page.bytes[23 * rowBytes..<24 * rowBytes])

        let coded = try raw.withUnsafeBytes {
            try codec.encode(
                block: $0, mode: .transform, quality: .ratio(8), protected: RowSet(count: 64), keepOutliers: false)
        }
        #expect(try header(coded).protected.isEmpty)
    }

    @Test func ordinaryRowsAreNotOutliers() throws {
        let real = try RealPages.shared.get()
        for page in real.pages {
            let block = try encoded(try real.codec(), try real.raw(page), .transform, .ratio(8))
            #expect(try header(block).protected.isEmpty)
        }
    }

    /// The ratio counts until the bound does: then the block takes the bytes it needs.
    @Test func aBoundOnTheDistortionTakesFromTheRatio() throws {
        let real = try RealPages.shared.get()
        let codec = try real.codec()
        let raw = try real.raw(real.pages[4])
        let free = try header(try encoded(codec, raw, .transform, .ratio(16)))
        let loose = try header(
            try encoded(codec, raw, .transform, .bounded(ratio: 16, distortion: min(1, 2 * free.distortion))))
        #expect(Double(loose.codedRawBytes) >= 16 * Double(loose.codedStoredBytes))
        #expect(Double(loose.blockBytes) > 0.98 * Double(free.blockBytes))
        let tight = try header(
            try encoded(codec, raw, .transform, .bounded(ratio: 16, distortion: free.distortion / 2)))
        #expect(tight.mode == .transform)
        #expect(tight.distortion <= free.distortion / 2)
        #expect(tight.blockBytes > free.blockBytes)
        let exact = try header(try encoded(codec, raw, .transform, .bounded(ratio: 16, distortion: 1e-6)))
        #expect(exact.mode == .lossless)
    }
}
