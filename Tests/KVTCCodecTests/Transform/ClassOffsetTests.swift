import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@Suite struct ClassOffsetTests {
    @Test func everyOptionComesBack() {
        for octaves in 0...3 {
            for classOffset in TransformCoder.classOffsetRange {
                let option = TransformCoder.option(octaves: octaves, classOffset: classOffset)
                #expect(option <= 0x7F)
                #expect(TransformCoder.octaves(option) == octaves)
                #expect(TransformCoder.classOffset(option) == classOffset)
            }
        }
    }

    /// A page whose values are four times as wide as calibrated takes tables four times as wide: eight classes.
    @Test func tablesFollowThePage() throws {
        let real = try RealPages.shared.get()
        let codec = try real.codec()
        let page = real.pages[3]
        func classOffsets(scale: Float) throws -> [Int] {
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
            let rank = Int(section[section.startIndex + 4]) | Int(section[section.startIndex + 5]) << 8
            let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
            return section.dropFirst(12).prefix(groups).filter { $0 != TransformCoder.cutGroup }.map(
                TransformCoder.classOffset)
        }
        let (own, wide) = (try classOffsets(scale: 1), try classOffsets(scale: 4))
        #expect(own.allSatisfy { (-4...4).contains($0) })
        #expect(wide.allSatisfy { $0 >= 4 })
    }
}
