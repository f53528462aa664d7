import CKernels
import Foundation
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@testable import KVTCCalibration

/// Errors weighed by gradients: a matrix for each head instead of a number for each tensor.
@Suite struct GradientTests {
    private static let rotary = Rotary(style: .halfSplit, offset: 0, dims: 32, base: 10_000)

    private static func model() throws -> SyntheticModel {
        var model = try SyntheticModel(
            (0..<4).flatMap {
                [
                    TensorGeometry(layer: $0, role: .key, heads: 2, headDim: 32, rotary: rotary),
                    TensorGeometry(layer: $0, role: .value, heads: 2, headDim: 32),
                ]
            })
        model.noise = 0.3
        return model
    }

    /// Writes gradients that are ten times as large in the first eight elements of each head, before rotation, as elsewhere.
    private static func writeGradients(_ model: SyntheticModel, _ path: String) throws {
        let width = model.geometry.rowElements
        var random = SeededGenerator(seed: 41)
        let rotation = Rotation(geometry: model.geometry)
        let positions = Array(0..<1500)
        var bytes = [UInt8](repeating: 0, count: positions.count * width * 2)
        for position in positions {
            var row = (0..<width).map { random.normal() * ($0 % 32 < 8 ? 10 : 1) }
            row.withUnsafeMutableBufferPointer { rotation.apply($0.baseAddress!, position: position, direction: 1) }
            bytes.withUnsafeMutableBytes {
                _ = kv_scalar().pointee.convert.from_float(KV_F16, row, $0.baseAddress! + position * width * 2, width)
            }
        }
        try model.write(
            path, positions: positions, rows: bytes, metadata: ["format": SampleContent.gradients.rawValue])
    }

    /// What errors of a page cost at a ratio: a hundred times as much in those elements.
    private static func cost(_ profile: Profile, _ model: SyntheticModel) throws -> Double {
        let codec = try PageCodec(geometry: model.geometry, profile: profile)
        let layout = PageLayout(element: .f16, order: .tokenTensorHead)
        let page = model.cached(Array(2000..<2064), seed: 900)
        let raw = try page.withUnsafeBytes {
            try codec.wrap(page: $0, layout: layout, tokens: 64, firstPosition: 2000)
        }
        let block = try raw.withUnsafeBytes {
            try codec.encode(block: $0, mode: .transform, quality: .ratio(8), protected: RowSet(count: 64))
        }
        var decoded = [UInt8](repeating: 0, count: page.count)
        try block.withUnsafeBytes { block in
            try decoded.withUnsafeMutableBytes {
                try codec.decode(block: block, layers: 0..<4, layout: layout, into: $0)
            }
        }
        let width = model.geometry.rowElements
        func plain(_ bytes: [UInt8]) -> [Float] {
            var rows = floats(bytes, .f16)
            let rotation = Rotation(geometry: model.geometry)
            rows.withUnsafeMutableBufferPointer {
                for row in 0..<64 {
                    rotation.apply($0.baseAddress! + row * width, position: 2000 + row, direction: -1)
                }
            }
            return rows
        }
        return zip(plain(page), plain(decoded)).enumerated().reduce(0) {
            let error = Double($1.element.0 - $1.element.1)
            return $0 + error * error * ($1.offset % 32 < 8 ? 100 : 1)
        }
    }

    @Test func errorsGoWhereGradientsAreSmall() throws {
        let directory = try TemporaryDirectory()
        let model = try GradientTests.model()
        try GradientTests.writeGradients(model, directory.file("gradients.safetensors"))
        try model.write(directory.file("samples.safetensors"), contexts: SyntheticModel.contexts, seed: 100)
        let samples = try SampleSet(paths: [directory.file("samples.safetensors")])
        let gradients = try SampleSet(paths: [directory.file("gradients.safetensors")], content: .gradients)
        let information = try FisherInformation(gradients, geometry: model.geometry) { _ in }
        func profile(_ weighting: Weighting, limits: StagedBasis.Limits = .standard) throws -> Profile {
            let calibrator = try Calibrator(samples: samples, weighting: weighting, limits: limits) { _ in }
            return try Profile(bytes: [UInt8](calibrator.run()))
        }
        let (plain, ours) = (try profile(.variance), try profile(.gradients(information)))
        #expect(plain.metadata.format == 2 && ours.metadata.format == 3 && ours.metadata.weighting == "gradients")
        // Captured variance is only that if the basis is orthonormal where it is counted.
        #expect(ours.metadata.captured! <= 1)
        let (before, after) = (try GradientTests.cost(plain, model), try GradientTests.cost(ours, model))
        print("cost of a page's errors: \(before) by variance, \(after) by gradients")
        #expect(after < before / 2)
        // In two stages, heads are in groups as wholes.
        let staged = try profile(.gradients(information), limits: .init(exact: 256, group: 128, joint: 192))
        #expect(try GradientTests.cost(staged, model) < before / 2)
    }

    @Test func rootsUndoEachOther() throws {
        let directory = try TemporaryDirectory()
        let model = try GradientTests.model()
        try GradientTests.writeGradients(model, directory.file("gradients.safetensors"))
        let gradients = try SampleSet(paths: [directory.file("gradients.safetensors")], content: .gradients)
        let roots = try FisherInformation(gradients, geometry: model.geometry) { _ in }.metric()
        let width = model.geometry.rowElements
        var random = SeededGenerator(seed: 43)
        let start = (0..<5 * width).map { _ in random.normal() }
        var rows = start
        roots.root.apply(&rows, count: 5, stride: width, kernels: .best)
        #expect(zip(rows, start).contains { abs($0 - $1) > 0.1 })
        roots.inverse.apply(&rows, count: 5, stride: width, kernels: .best)
        #expect(zip(rows, start).allSatisfy { abs($0 - $1) < 4e-3 })
    }

    @Test func filesOfTheWrongKindAreRefused() throws {
        let directory = try TemporaryDirectory()
        let model = try GradientTests.model()
        let (samples, gradients) = (directory.file("s.safetensors"), directory.file("g.safetensors"))
        try model.write(samples, contexts: [Array(0..<200)], seed: 1)
        try GradientTests.writeGradients(model, gradients)
        #expect { try SampleSet(paths: [gradients]) } throws: { "\($0)".contains("kvtc-samples-1") }
        #expect { try SampleSet(paths: [samples], content: .gradients) } throws: {
            "\($0)".contains("kvtc-gradients-1") && "\($0)".contains("kvtc.calibration.gradients")
        }
        let other = try SyntheticModel([TensorGeometry(layer: 0, role: .value, heads: 1, headDim: 32)])
        let set = try SampleSet(paths: [gradients], content: .gradients)
        #expect { try FisherInformation(set, geometry: other.geometry) { _ in } } throws: {
            "\($0)".contains("capture both from one model")
        }
    }

    @Test func headsWiderThanAMatrixAreDivided() throws {
        let geometry = try Geometry(tensors: [
            TensorGeometry(layer: 0, role: .latent, heads: 1, headDim: 576),
            TensorGeometry(layer: 0, role: .key, heads: 2, headDim: 256),
        ])
        #expect(
            HeadMatrices.blocks(of: geometry)
                == [0..<256, 256..<512, 512..<640, 640..<768, 768..<896, 896..<1024, 1024..<1088])
        #expect(HeadMatrices.count(for: geometry) == 2 * 256 * 256 + 4 * 128 * 128 + 64 * 64)
    }
}
