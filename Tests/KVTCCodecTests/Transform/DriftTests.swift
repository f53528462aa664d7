import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@Suite struct DriftTests {
    @Test func everyOptionComesBack() {
        for octaves in 0...3 {
            for drift in TransformCoder.driftRange {
                let option = TransformCoder.option(octaves: octaves, drift: drift)
                #expect(option <= 0x7F)
                #expect(TransformCoder.octaves(option) == octaves)
                #expect(TransformCoder.drift(option) == drift)
            }
        }
    }

    /// A page whose values are four times as wide as calibrated takes tables four times as wide: eight classes.
    @Test func tablesFollowThePage() throws {
        let real = try RealPages.shared.get()
        let codec = try real.codec()
        let page = real.pages[3]
        func drifts(scale: Float) throws -> [Int] {
            var values = [Float](repeating: 0, count: page.bytes.count / 2)
            page.bytes.withUnsafeBytes { convertToFloat(.f16, $0.baseAddress!, &values, values.count) }
            let wide = values.flatMap { value -> [UInt8] in
                let bits = Float16(value * scale).bitPattern
                return [UInt8(bits & 255), UInt8(bits >> 8)]
            }
            // Scaled rows are outliers, which would be kept exact.
            let block = try real.raw((wide, page.position)).withUnsafeBytes {
                try codec.encode(
                    block: $0, mode: .transform, quality: .ratio(12), protected: RowSet(count: RealPages.tokens),
                    keepOutliers: false)
            }
            let head = try header(block)
            let section = block[(block.count - head.codedBytes)...]
            let rank = Int(section[section.startIndex + 12]) | Int(section[section.startIndex + 13]) << 8
            let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
            return section.dropFirst(16).prefix(groups).filter { $0 != TransformCoder.cutGroup }.map(
                TransformCoder.drift)
        }
        let (own, wide) = (try drifts(scale: 1), try drifts(scale: 4))
        #expect(own.allSatisfy { (-4...4).contains($0) })
        #expect(wide.allSatisfy { $0 >= 4 })
    }
}
