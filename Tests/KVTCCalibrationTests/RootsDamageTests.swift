import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@testable import KVTCCalibration

/// A profile with roots, which only profiles weighed by gradients have, is refused when it lost or changed bits.
@Suite struct RootsDamageTests {
    private static func written() throws -> [UInt8] {
        let directory = try TemporaryDirectory()
        let tensors = [Role.key, .value].map { TensorGeometry(layer: 0, role: $0, heads: 1, headDim: 8) }
        let model = try SyntheticModel(tensors)
        let (samples, gradients) = (directory.file("s.safetensors"), directory.file("g.safetensors"))
        try model.write(samples, contexts: [Array(0..<1000)], seed: 1)
        try model.write(
            gradients, contexts: [Array(0..<500)], seed: 2, metadata: ["format": SampleContent.gradients.rawValue])
        let information = try FisherInformation(
            try SampleSet(paths: [gradients], content: .gradients), geometry: model.geometry
        ) { _ in }
        return [UInt8](
            try Calibrator(
                samples: try SampleSet(paths: [samples]), weighting: .gradients(information), rank: 16
            ) { _ in }.run())
    }

    @Test func everyFlippedBitAndTruncationIsNoticed() throws {
        let file = try RootsDamageTests.written()
        #expect(try Profile(bytes: file).metadata.weighting == "gradients")
        // The header in front of the tensors is like any profile's, whose every bit `ProfileDamageTests` flips.
        let tensors = 8 + file.withUnsafeBytes { Int($0.load(as: UInt64.self)) }
        var accepted: [String] = []
        for offset in tensors..<file.count {
            for bit in 0..<8 {
                var damaged = file
                damaged[offset] ^= 1 << UInt8(bit)
                if (try? Profile(bytes: damaged)) != nil { accepted.append("bit \(bit) of byte \(offset)") }
            }
            if (try? Profile(bytes: Array(file[..<offset]))) != nil { accepted.append("cut to \(offset)") }
        }
        #expect(accepted.isEmpty)
    }
}
