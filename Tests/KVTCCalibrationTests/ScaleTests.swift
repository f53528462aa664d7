import Foundation
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@testable import KVTCCalibration

/// Calibration of rows too wide for one decomposition, where one is still possible to compare with.
@Suite struct ScaleTests {
    private static let limits = StagedBasis.Limits(exact: 512, group: 256, joint: 384)

    @Test func twoStagesCaptureWithinAHundredthOfTheExactSubspace() throws {
        let samples = try SyntheticCache(layers: 12, heads: 2, headDim: 32, tokens: 8 * 2048, seed: 3)
        #expect(samples.geometry.rowElements == 1536)
        func profile(_ limits: StagedBasis.Limits) throws -> Profile {
            var fractions: [Double] = []
            let file = try Calibrator(samples: samples, weighting: .variance, rank: 552, limits: limits) {
                fractions.append($0.fraction)
            }.run()
            #expect(fractions == fractions.sorted() && fractions.last == 1)
            return try Profile(bytes: [UInt8](file))
        }
        let (exact, staged) = (try profile(.standard), try profile(ScaleTests.limits))
        let (best, ours) = (exact.metadata.captured!, staged.metadata.captured!)
        print("captured by 552 of 1536 components: exact \(best), two stages \(ours)")
        #expect(ours > 0.99 * best)
        // Not for want of a difference: layers by themselves lose more.
        let layers = try profile(.init(exact: 512, group: 256, joint: 1))
        #expect(layers.metadata.captured! < ours)
        let again = try Calibrator(samples: samples, weighting: .variance, rank: 552, limits: ScaleTests.limits) { _ in
        }
        #expect(try Profile(bytes: [UInt8](again.run())).id == staged.id)
    }

    @Test func stagedComponentsAreOrthonormalAndInOrder() throws {
        let samples = try SyntheticCache(layers: 6, heads: 1, headDim: 32, tokens: 2048, seed: 5)
        let groups = ColumnGroup.groups(of: ColumnGroup([0..<384]), geometry: samples.geometry, limit: 128)
        #expect(groups.map(\.width) == [128, 128, 128])
        #expect(groups[0].ranges == [0..<32, 192..<224, 32..<64, 224..<256])
        var moments = try Moments(
            width: 384, total: 2048, groups: groups, stream: { try samples.stream([0..<2048], $0) },
            explain: samples.explain
        ) { _ in }
        var covariances = moments.release()
        let basis = try StagedBasis(
            columns: ColumnGroup([0..<384]), rowElements: 384, groups: groups, covariances: &covariances, rank: 384
        ) { _ in }
        let bands = basis.bands(floor: 0, joint: 100, limit: 128)
        #expect(bands.map(\.width) == [100, 128, 128, 28])
        let outputs = Matrix(rows: samples.batch, columns: 384)
        let scratch = Matrix(rows: samples.batch, columns: 128)
        var joint = try Moments(
            width: 384, total: 2048, groups: bands,
            stream: { body in
                try samples.stream([0..<2048]) { rows, count, runs in
                    basis.transform(rows, count: count, into: outputs.values, scratch: scratch)
                    try body(outputs.values, count, runs)
                }
            }, explain: samples.explain
        ) { _ in }
        var own = joint.release()
        try basis.join(bands, &own, rank: 384) { _ in }
        #expect(basis.count == 384)
        #expect(basis.variances == basis.variances.sorted(by: >))
        // In two tiles, so that the second does not start where the first did.
        let vectors = Matrix(rows: 384, columns: 384)
        basis.fill(0..<200, into: vectors.values)
        basis.fill(200..<384, into: vectors.values + 200 * 384)
        var worst: Float = 0
        for a in 0..<384 {
            for b in a..<384 {
                var product: Float = 0
                for column in 0..<384 { product += vectors.values[a * 384 + column] * vectors.values[b * 384 + column] }
                worst = max(worst, abs(product - (a == b ? 1 : 0)))
            }
        }
        #expect(worst < 1e-4)
    }

    @Test func groupsCoverEveryColumnOnceAndStayNarrow() throws {
        let half = Rotary(style: .halfSplit, dims: 64, base: 1e4)
        for (tensors, limit) in [
            (ShapeTests.pairs(0..<5, heads: 2, key: 64, value: 64, half), 512),
            (ShapeTests.pairs(0..<5, heads: 8, key: 64, value: 128, half), 512),
            ((0..<3).map { TensorGeometry(layer: 2 * $0, role: .latent, heads: 1, headDim: 576) }, 200),
            (ShapeTests.pairs(7..<20, heads: 1, key: 64, value: 32, half), 300),
        ] {
            let geometry = try Geometry(tensors: tensors)
            for parts in [1, 2, 3] {
                let bases = ColumnGroup.bases(of: geometry, parts: parts)
                #expect(bases.count == parts)
                #expect(bases.flatMap(\.columns).sorted() == Array(0..<geometry.rowElements))
                for basis in bases {
                    let groups = ColumnGroup.groups(of: basis, geometry: geometry, limit: limit)
                    #expect(groups.flatMap(\.columns).sorted() == basis.columns.sorted())
                    #expect(groups.allSatisfy { $0.width <= limit && $0.width > 0 })
                    #expect(groups.count <= 2 * (basis.width + limit - 1) / limit)
                }
            }
        }
    }

    @Test func momentsAreThoseOfTheRowsHoweverFarFromZero() throws {
        // Means a thousand times the deviation: in single precision, products about zero would lose the variance.
        var random = SeededGenerator(seed: 11)
        let values = (0..<4000).map { _ in [1000 + random.normal(), -500 + 2 * random.normal(), random.normal()] }
        let mean = (0..<3).map { column in values.reduce(0.0) { $0 + Double($1[column]) } / 4000 }
        let groups = [ColumnGroup([0..<1, 2..<3]), ColumnGroup([1..<2])]
        let moments = try Moments(
            width: 3, total: 4000, groups: groups,
            stream: { body in
                for start in stride(from: 0, to: 4000, by: 1000) {
                    var batch = values[start..<start + 1000].flatMap { $0 }
                    try batch.withUnsafeMutableBufferPointer { try body($0.baseAddress!, 1000, [start..<start + 1000]) }
                }
            }, explain: { _, _ in CalibrationError("not finite") }
        ) { _ in }
        for column in 0..<3 {
            let variance = values.reduce(0.0) { $0 + pow(Double($1[column]) - mean[column], 2) } / 4000
            #expect(abs(Double(moments.mean[column]) - mean[column]) < 1e-3)
            #expect(abs(moments.variances[column] / variance - 1) < 1e-3)
        }
    }

    @Test func valuesThatAreNotFiniteAreFoundAndTooFewTokensSaid() throws {
        let directory = try TemporaryDirectory()
        let model = try SyntheticModel(ShapeTests.grouped, element: .f32)
        try model.write(directory.file("s"), contexts: SyntheticModel.contexts, seed: 1)
        var file = try Data(contentsOf: URL(filePath: directory.file("s")))
        let tensors = try file.withUnsafeBytes { try Safetensors($0) }.tensors
        let at = try #require(tensors["v.1"]).range.lowerBound + (210 * 128 + 5) * 4
        file.replaceSubrange(at..<at + 4, with: [0, 0, 0xC0, 0x7F])
        try file.write(to: URL(filePath: directory.file("bad")))
        let samples = try SampleSet(paths: [directory.file("bad")])
        let error = #expect(throws: CalibrationError.self) {
            try Calibrator(samples: samples, weighting: .variance) { _ in }.run()
        }
        #expect(
            error?.description.contains("bad: token 210 holds NaN or infinities in the value of layer 1") == true)
        try model.write(directory.file("few"), contexts: [Array(0..<40)], seed: 1)
        let few = try SampleSet(paths: [directory.file("few")])
        let refused = #expect(throws: CalibrationError.self) {
            _ = try Calibrator(samples: few, weighting: .variance) { _ in }
        }
        #expect(refused?.description.contains("40 tokens are too few") == true)
    }

    @Test func theFileIsTheSameWrittenOrInMemoryAndLeavesNothingBehind() throws {
        let samples = try SampleSet(paths: [testFile("Fixtures/smollm2-layers-11-12.safetensors")])
        let directory = try TemporaryDirectory()
        let calibrator = try Calibrator(samples: samples, weighting: .variance, rank: 30) { _ in }
        try calibrator.run(writingTo: directory.file("p"))
        #expect(try Data(contentsOf: URL(filePath: directory.file("p"))) == calibrator.run())
        #expect(throws: CalibrationError.self) { try calibrator.run(writingTo: directory.path + "/none/p") }
        struct Stop: Error {}
        #expect(throws: Stop.self) {
            try Calibrator(samples: samples, weighting: .variance) { if $0.fraction > 0.5 { throw Stop() } }.run(
                writingTo: directory.file("q"))
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["p"])
    }

    @Test func thinnedRangesAreSpreadEvenly() {
        let ranges = [0..<1000, 2000..<2010, 5000..<6000]
        let thinned = SampleSplit.thinned(ranges, to: 640)
        #expect((500...700).contains(SampleSplit.count(thinned)))
        #expect(thinned.contains { $0.lowerBound < 200 } && thinned.contains { $0.lowerBound > 5600 })
        #expect(SampleSplit.thinned(ranges, to: 5000) == ranges)
    }

    @Test func theRealModelInTwoStagesStaysNearTheExactBasis() throws {
        let samples = try SampleSet(paths: [testFile("Fixtures/smollm2-layers-11-12.safetensors")])
        func profile(_ limits: StagedBasis.Limits) throws -> Profile {
            try Profile(
                bytes: [UInt8](
                    try Calibrator(samples: samples, weighting: .variance, rank: 276, limits: limits) { _ in }.run()))
        }
        let exact = try profile(.standard)
        let staged = try profile(.init(exact: 512, group: 384, joint: 400))
        print("SmolLM2: exact \(exact.metadata.captured!), two stages \(staged.metadata.captured!)")
        #expect(staged.metadata.captured! > 0.98 * exact.metadata.captured!)
    }
}
