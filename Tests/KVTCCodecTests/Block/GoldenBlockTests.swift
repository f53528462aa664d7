import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Blocks that must decode to the same bytes for ever, with the profile they need, of each of the formats that profiles have had.
/// KVTC_WRITE_GOLDEN=1 writes those of formats that this release still writes, which is right only together with a new version
/// in `BlockFormat.md`.
@Suite struct GoldenBlockTests {
    struct Golden: Codable {
        struct Case: Codable {
            var name: String
            var block: Data
            var page: Data
        }
        var profile: Data
        var cases: [Case]
    }

    static func path(_ format: Int) -> String { testFile("Golden/blocks-\(format).json") }
    static func read(_ format: Int) throws -> Golden {
        try JSONDecoder().decode(Golden.self, from: try Data(contentsOf: URL(fileURLWithPath: path(format))))
    }
    static let layout = PageLayout(element: .f16, order: .tokenTensorHead)
    static let tokens = 8

    /// What format 3 has and 2 has not are the matrices of gradients; any numbers do for that.
    private static func weighting(_ format: Int, _ samples: SampleSet) throws -> Weighting {
        guard format == 3 else { return .variance }
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

    private static let fixture = testFile("Fixtures/smollm2-layers-11-12.safetensors")

    private static func make(_ format: Int) throws -> Golden {
        let samples = try SampleSet(paths: [fixture])
        let file = try Calibrator(samples: samples, weighting: weighting(format, samples), rank: 40) { _ in }.run()
        let codec = try PageCodec(geometry: samples.geometry, profile: try Profile(bytes: [UInt8](file)))
        let start = samples.contexts[5].lowerBound
        let page = samples.cached(start..<start + tokens)
        let raw = try page.withUnsafeBytes {
            try codec.wrap(page: $0, layout: layout, tokens: tokens, firstPosition: samples.position(of: start))
        }
        var golden = Golden(profile: file, cases: [])
        for (mode, protected) in [
            (Mode.raw, []), (.lossless, []), (.quant8, []), (.quant4, [0]), (.transform, []),
            (.transform, [0, 7]),
            (.kvtc, [3]),
        ] {
            let block = try encoded(codec, raw, mode, .ratio(16), protected: protected, tokens: tokens)
            let output = try decoded(codec, block, layout, tokens: tokens)
            golden.cases.append(
                .init(name: "\(mode), rows \(protected) protected", block: Data(block), page: Data(output)))
        }
        return golden
    }

    @Test(arguments: 1...3) func oldBlocksDecodeToTheSameBytesOnEveryTier(format: Int) throws {
        if ProcessInfo.processInfo.environment["KVTC_WRITE_GOLDEN"] == "1", format > 1 {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try encoder.encode(GoldenBlockTests.make(format)).write(
                to: URL(fileURLWithPath: GoldenBlockTests.path(format)))
        }
        let golden = try GoldenBlockTests.read(format)
        let profile = try Profile(bytes: [UInt8](golden.profile))
        #expect(golden.cases.count == 7 && profile.metadata.format == format)
        for kernels in KernelTable.all {
            let codec = try PageCodec(geometry: profile.geometry, profile: profile, kernels: kernels)
            for entry in golden.cases {
                let output = try decoded(
                    codec, [UInt8](entry.block), GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
                #expect(Data(output) == entry.page, "\(entry.name)")
            }
        }
        // The modes are those their names promise.
        let modes = try golden.cases.map { try header([UInt8]($0.block)).mode }
        #expect(modes == [.raw, .lossless, .quant8, .quant4, .transform, .transform, .kvtc])
    }

    /// Of the coded blocks; that of a raw one is in `PageCodecTests`.
    @Test(arguments: ["transform, rows [] protected", "quant4, rows [0] protected", "kvtc, rows [3] protected"])
    func everyFlippedBitAndTruncationIsNoticed(name: String) throws {
        let golden = try GoldenBlockTests.read(1)
        let profile = try Profile(bytes: [UInt8](golden.profile))
        let codec = try PageCodec(geometry: profile.geometry, profile: profile)
        let block = [UInt8](try #require(golden.cases.first { $0.name == name }).block)
        func expectRefusal(_ damaged: [UInt8], _ what: String) {
            #expect(throws: CodecError.self, "\(what)") {
                try decoded(codec, damaged, GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
            }
        }
        for offset in block.indices {
            for bit in 0..<8 as Range<UInt8> {
                var damaged = block
                damaged[offset] ^= 1 << bit
                expectRefusal(damaged, "bit \(bit) of byte \(offset)")
            }
            expectRefusal(Array(block[..<offset]), "cut to \(offset)")
        }
    }
}
