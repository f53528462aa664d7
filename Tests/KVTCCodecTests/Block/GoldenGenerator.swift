import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport

/// What golden files were made with. `KVTC_WRITE_GOLDEN=blocks-4 swift test …` writes the one of that name, as far as this release writes
/// profiles of that format (from 2 on), which is right only together with a new version in `BlockFormat.md` or `ProfileFormat.md`.
enum GoldenGenerator {
    /// Writes the file where its name is asked for.
    static func write(_ name: String, _ content: () throws -> some Encodable) throws {
        guard ProcessInfo.processInfo.environment["KVTC_WRITE_GOLDEN"] == name else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(content()).write(to: URL(fileURLWithPath: testFile("Golden/\(name).json")))
    }

    private static let fixture = testFile("Fixtures/smollm2-layers-11-12.safetensors")

    /// A profile of that format, and blocks of eight tokens: in the form that `transform` had when the format was new.
    static func blocks(_ format: Int) throws -> GoldenBlockTests.Golden {
        let samples = try SampleSet(paths: [fixture])
        let file = try Calibrator(
            samples: samples, weighting: weighting(format, samples), rank: 40, layerGroups: format == 4 ? 2 : 1
        ) { _ in }.run()
        let codec = try PageCodec(geometry: samples.geometry, profile: try Profile(bytes: [UInt8](file)))
        let (start, tokens) = (samples.contexts[5].lowerBound, GoldenBlockTests.tokens)
        let page = samples.cached(start..<start + tokens)
        let raw = try page.withUnsafeBytes {
            try codec.wrap(
                page: $0, layout: GoldenBlockTests.layout, tokens: tokens, firstPosition: samples.position(of: start))
        }
        var golden = GoldenBlockTests.Golden(profile: file, cases: [])
        func add(_ name: String, _ block: [UInt8]) throws {
            let output = try decoded(codec, block, GoldenBlockTests.layout, tokens: tokens)
            golden.cases.append(.init(name: name, block: Data(block), page: Data(output)))
        }
        func block(_ mode: Mode, _ ratio: Float, _ protected: [Int]) throws -> [UInt8] {
            try encoded(codec, raw, mode, .ratio(ratio), protected: protected, tokens: tokens)
        }
        for (mode, protected) in [
            (Mode.raw, []), (.lossless, []), (.quant8, []), (.quant4, [0]), (.transform, []),
            (.transform, [0, 7]), (.kvtc, [3]),
        ] {
            let made = try block(mode, 16, protected)
            let isOld = mode == .transform && format < 4
            try add(
                "\(mode), rows \(protected) protected", isOld ? try codec.recoded(made, as: .stream) : made)
        }
        if format == 4 {
            try add("transform, version 1", codec.recoded(block(.transform, 16, []), as: .stream))
            let fine = try block(.transform, 3, [1])
            try add("transform, 3 chunks of 5 states", codec.recoded(fine, as: .chunks(lanes: 5, chunks: 3)))
        }
        return golden
    }

    /// What format 3 has and 2 has not are the matrices of gradients; any numbers do for that.
    private static func weighting(_ format: Int, _ samples: SampleSet) throws -> Weighting {
        guard format > 2 else { return .variance }
        let directory = try TemporaryDirectory()
        let file = try Data(contentsOf: URL(fileURLWithPath: fixture))
        let header = 8 + file.withUnsafeBytes { Int($0.loadUnaligned(as: UInt64.self)) }
        var json = String(decoding: file[8..<header], as: UTF8.self)
            .replacing(SampleContent.cache.rawValue, with: SampleContent.gradients.rawValue)
        json += String(repeating: " ", count: -json.utf8.count & 7)
        let length = withUnsafeBytes(of: UInt64(json.utf8.count).littleEndian) { Data($0) }
        let path = directory.file("gradients.safetensors")
        try (length + Data(json.utf8) + file[header...]).write(to: URL(fileURLWithPath: path))
        let gradients = try SampleSet(paths: [path], content: .gradients)
        return .gradients(try FisherInformation(gradients, geometry: samples.geometry) { _ in })
    }
}
