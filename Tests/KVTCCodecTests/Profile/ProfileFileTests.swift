import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

@Suite struct ProfileFileTests {
    /// A mapped profile, the same one from bytes, and blocks between them.
    @Test func mappedProfilesAreTheSame() throws {
        let samples = try SampleSet(paths: [testFile("Fixtures/smollm2-layers-11-12.safetensors")])
        let file = try Calibrator(samples: samples, weighting: .variance, rank: 60) { _ in }.run()
        let directory = try TemporaryDirectory()
        let path = directory.path + "/a.kvtc.safetensors"
        try file.write(to: URL(fileURLWithPath: path))
        let mapped = try Profile.open(path: path)
        let copied = try Profile(bytes: [UInt8](file))
        #expect(mapped.id == copied.id)
        #expect(mapped.metadata.format == 2)
        #expect(mapped.metadata.bases.allSatisfy { $0.digits * 100 <= $0.rank * 131 })
        let start = samples.contexts[2].lowerBound
        let page = samples.cached(start..<start + 64)
        let layout = PageLayout(element: .f16, order: .tokenTensorHead)
        var outputs: [[UInt8]] = []
        for profile in [mapped, copied] {
            let codec = try PageCodec(geometry: samples.geometry, profile: profile)
            let raw = try page.withUnsafeBytes {
                try codec.wrap(page: $0, layout: layout, tokens: 64, firstPosition: samples.position(of: start))
            }
            let block = try encoded(codec, raw, .transform, .ratio(16))
            outputs += [block, try decoded(codec, block, layout, tokens: 64)]
        }
        #expect(outputs[0] == outputs[2])
        #expect(outputs[1] == outputs[3])
        // Cut short, the file names what is wrong.
        for length in [0, 7, 4096, file.count - 1] {
            try file.prefix(length).write(to: URL(fileURLWithPath: path + ".cut"))
            #expect(throws: CodecError.self) { try Profile.open(path: path + ".cut") }
        }
    }
}
