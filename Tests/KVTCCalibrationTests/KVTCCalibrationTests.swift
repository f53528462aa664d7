import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

private let fixture = testFile("Fixtures/smollm2-layers-11-12.safetensors")

@Suite struct CalibratorTests {
    @Test func profileIsTheSameOnEveryRunAndDescribesTheSamples() throws {
        let samples = try SampleSet(paths: [fixture])
        #expect(samples.tokens == 768)
        #expect(samples.contexts.count == 6)
        #expect(samples.geometry.rowElements == 768)
        var fractions: [Double] = []
        let first = try Calibrator(samples: samples, weighting: .variance, rank: 100) { fractions.append($0.fraction) }
            .run()
        let second = try Calibrator(samples: samples, weighting: .variance, rank: 100) { _ in }.run()
        #expect(first == second)
        #expect(fractions == fractions.sorted() && fractions.last == 1)
        let profile = try Profile(bytes: [UInt8](first))
        #expect(profile.geometry == samples.geometry)
        #expect(profile.metadata.weighting == "variance")
        #expect(profile.metadata.calibrationTokens + profile.metadata.heldOutTokens == 768)
        let spectrum = try #require(profile.spectra.first)
        #expect(spectrum.count == 100 && spectrum == spectrum.sorted(by: >))
        let ratios = profile.metadata.expectations
        #expect(ratios.count > 10)
        for (a, b) in zip(ratios, ratios.dropFirst()) { #expect(a.ratio <= b.ratio && a.stepIndex <= b.stepIndex) }
        #expect(ratios.last!.distortion > ratios.first!.distortion)
    }

    @Test func publishedProfileKeepsKeysAndValuesApart() throws {
        let samples = try SampleSet(paths: [fixture])
        let file = try Calibrator(samples: samples, weighting: .published, rank: 64) { _ in }.run()
        let profile = try Profile(bytes: [UInt8](file))
        #expect(profile.metadata.bases.map(\.ranges) == [[0..<384], [384..<768]])
        #expect(profile.metadata.bases.map(\.rank) == [64, 64])
        #expect(profile.metadata.weighting == "none")
    }

    @Test func sensitivityMovesTheErrorToWhereItIsCheap() throws {
        let directory = try TemporaryDirectory()
        let samples = try SampleSet(paths: [fixture])
        // Errors in the keys of layer 0 cost ten thousand times as much as any other.
        let path = directory.path + "/s.json"
        try Data(
            #"{"format":"kvtc-sensitivity-1","layers":[{"layer":0,"key":10000,"value":1},{"layer":1,"key":1,"value":1}]}"#
                .utf8
        ).write(to: URL(fileURLWithPath: path))
        func error(_ weighting: Weighting) throws -> Double {
            let file = try Calibrator(samples: samples, weighting: weighting, rank: 200) { _ in }.run()
            let codec = try PageCodec(geometry: samples.geometry, profile: try Profile(bytes: [UInt8](file)))
            let layout = PageLayout(element: .f16, order: .tokenTensorHead)
            let context = samples.contexts[5]
            let page = samples.cached(context.lowerBound..<context.lowerBound + 64)
            let raw = try page.withUnsafeBytes {
                try codec.wrap(
                    page: $0, layout: layout, tokens: 64, firstPosition: samples.position(of: context.lowerBound))
            }
            let block = try raw.withUnsafeBytes {
                try codec.encode(block: $0, mode: .transform, quality: .ratio(20), protected: RowSet(count: 64))
            }
            var output = page
            try block.withUnsafeBytes { bytes in
                try output.withUnsafeMutableBytes {
                    try codec.decode(block: bytes, layers: 0..<2, layout: layout, into: $0)
                }
            }
            var sum = 0.0
            for token in 0..<64 {
                for element in 0..<192 {
                    let at = (token * 768 + element) * 2
                    let a = Float16(bitPattern: UInt16(page[at]) | UInt16(page[at + 1]) << 8)
                    let b = Float16(bitPattern: UInt16(output[at]) | UInt16(output[at + 1]) << 8)
                    sum += Double((a - b) * (a - b))
                }
            }
            return sum
        }
        #expect(try error(.sensitivity(Sensitivity(contentsOf: path))) < 0.5 * error(.variance))
    }

    @Test func whatIsWrongWithAFileIsSaid() throws {
        let directory = try TemporaryDirectory()
        let good = try Data(contentsOf: URL(fileURLWithPath: fixture))
        func message(_ name: String, _ data: Data) throws -> String {
            let path = directory.path + "/" + name
            try data.write(to: URL(fileURLWithPath: path))
            do {
                _ = try SampleSet(paths: [path])
                return "accepted"
            } catch { return "\(error)" }
        }
        #expect(try message("cut", good.prefix(good.count - 1)).contains("do not hold"))
        #expect(try message("header", good.prefix(100)).contains("header of"))
        #expect(try message("empty", Data()).contains("0 bytes"))
        var hostile = Data()
        withUnsafeBytes(of: UInt64.max.littleEndian) { hostile.append(contentsOf: $0) }
        #expect(try message("long", hostile + good).contains("safetensors header"))
        func header(_ json: String) -> Data {
            var file = Data()
            withUnsafeBytes(of: UInt64(json.utf8.count).littleEndian) { file.append(contentsOf: $0) }
            return file + Data(json.utf8)
        }
        #expect(try message("json", header("{\"a\":")).contains("header"))
        #expect(
            try message(
                "overflow", header(#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#)
            )
            .contains("shape"))
        #expect(
            try message("negative", header(#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}"#)).contains(
                "shape"))
        #expect(
            try message("deep", header(String(repeating: "[", count: 100_000))).contains("header"))
        #expect(try message("plain", header("{}")).contains("kvtc-samples-1"))
        #expect(throws: CalibrationError.self) { try SampleSet(paths: [directory.path + "/none"]) }
        #expect(throws: CalibrationError.self) { try SampleSet(paths: []) }
    }

    @Test func truncatedAndAlteredProfilesAreRefused() throws {
        let samples = try SampleSet(paths: [fixture])
        let file = [UInt8](try Calibrator(samples: samples, weighting: .variance, rank: 16) { _ in }.run())
        for length in [0, 7, 8, 100, 3000, file.count - 1] {
            #expect(throws: CodecError.self) { try Profile(bytes: Array(file[..<length])) }
        }
        for (old, new) in [
            ("\"mean\"", "\"nean\""), ("\"F32\"", "\"F64\""), ("[768]", "[767]"), ("kvtc\"", "kvtd\""),
            ("\\\"format\\\":2", "\\\"format\\\":3"), ("\\\"rank\\\":16", "\\\"rank\\\":17"),
        ] {
            var bad = file
            let pattern = Array(old.utf8)
            let at = try #require(
                bad.indices.first { $0 + pattern.count < bad.count && Array(bad[$0..<$0 + pattern.count]) == pattern })
            bad.replaceSubrange(at..<at + pattern.count, with: Array(new.utf8))
            #expect(throws: CodecError.self, "\(old) → \(new)") { try Profile(bytes: bad) }
        }
    }
}
