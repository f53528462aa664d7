import Foundation
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Blocks that must decode to the same bytes for ever, with the profile they need, of each of the formats that profiles have had.
/// Those of formats 1 to 3 are of version 1, as no release writes them any more; their like of version 2 are in `GoldenSectionTests`.
/// `GoldenGenerator` made them.
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

    @Test(arguments: 1...4) func oldBlocksDecodeToTheSameBytesOnEveryTier(format: Int) throws {
        if format > 1 { try GoldenGenerator.write("blocks-\(format)") { try GoldenGenerator.blocks(format) } }
        let golden = try GoldenBlockTests.read(format)
        let profile = try Profile(bytes: [UInt8](golden.profile))
        #expect(golden.cases.count == (format < 4 ? 7 : 9) && profile.metadata.format == format)
        #expect(profile.metadata.bases.allSatisfy { ($0.ranges.count > 1) == (format == 4) })
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
        #expect(modes.prefix(7) == [.raw, .lossless, .quant8, .quant4, .transform, .transform, .kvtc])
        #expect(modes.dropFirst(7).allSatisfy { $0 == .transform })
        let versions = try golden.cases.filter { $0.name.hasPrefix("transform") }
            .map { try header([UInt8]($0.block)).version }
        #expect(versions == (format < 4 ? [1, 1] : [2, 2, 1, 2]))
    }

    /// Of the coded blocks; that of a raw one is in `PageCodecTests`.
    @Test(arguments: ["transform, rows [] protected", "quant4, rows [0] protected", "kvtc, rows [3] protected"])
    func everyFlippedBitAndTruncationIsNoticed(name: String) throws {
        let golden = try GoldenBlockTests.read(1)
        let profile = try Profile(bytes: [UInt8](golden.profile))
        let codec = try PageCodec(geometry: profile.geometry, profile: profile)
        let block = [UInt8](try #require(golden.cases.first { $0.name == name }).block)
        GoldenBlockTests.expectDamageIsNoticed(block, codec)
    }

    /// Flips every bit of a golden block, and cuts it everywhere.
    static func expectDamageIsNoticed(_ block: [UInt8], _ codec: PageCodec) {
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
