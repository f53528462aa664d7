import KVTCCodec
import KVTCModel
import Testing

@Suite struct ExpectationTests {
    private func metadata(_ lines: [(ratio: Double, distortion: Double)]) throws -> ProfileMetadata {
        let geometry = try Geometry(tensors: [TensorGeometry(layer: 0, role: .key, heads: 1, headDim: 8)])
        return ProfileMetadata(
            model: "m", weighting: "variance", geometry: geometry, bases: [], calibrationTokens: 1, heldOutTokens: 1,
            energy: 1,
            expectations: lines.map { .init(stepIndex: 0, ratio: $0.ratio, distortion: $0.distortion, rank: 1) })
    }

    /// An alarm that compares with what is expected is silent where nothing is.
    @Test func somethingIsExpectedOfEveryRatio() throws {
        let table = try metadata([(4, 0), (8, 0), (16, 0.01), (32, 0.04)])
        let expected = [1.0, 4, 5, 8, 12, 16, 24, 32, 33, 1000].map { table.expectedDistortion(ratio: $0) }
        #expect(expected.prefix(6).allSatisfy { $0 == 0.01 })
        #expect(abs(expected[6]! - 0.01 * 24 / 16 * 24 / 16) < 1e-9)
        #expect(expected.suffix(3) == [0.04, 1, 1])
        #expect(try metadata([(4, 0)]).expectedDistortion(ratio: 4) == nil)
        #expect(try metadata([]).expectedDistortion(ratio: 4) == nil)
    }

    @Test func noCodingHasLessErrorThanItsCodes() {
        var error = CodingError()
        #expect(error.total(of: 3) == 3)
        error.add(error: 0.25, energy: 2)
        #expect(error.total(of: 3) == 1.25)
        // More energy than there is, as components have that are not quite orthonormal.
        error.add(error: 0.25, energy: 1.5)
        #expect(error.total(of: 3) == 1)
    }
}
