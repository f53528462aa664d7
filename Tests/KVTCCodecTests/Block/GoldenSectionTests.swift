import Foundation
import KVTCCodec
import KVTCModel
import TestSupport
import Testing

/// Blocks of version 2 of the `transform` mode, which must decode to the same bytes for ever: of the pages and profiles of
/// `GoldenBlockTests` whose own blocks are of version 1. `GoldenGenerator` says how they are written.
@Suite struct GoldenSectionTests {
    struct Case: Codable {
        var name: String
        /// Of the file with the profile.
        var format: Int
        var block: Data
        var page: Data
    }

    static let path = testFile("Golden/sections-2.json")
    static let formats = 1...3

    private static func codec(_ format: Int, _ kernels: KernelTable = .best) throws -> PageCodec {
        let profile = try Profile(bytes: [UInt8](try GoldenBlockTests.read(format).profile))
        return try PageCodec(geometry: profile.geometry, profile: profile, kernels: kernels)
    }

    private static func make() throws -> [Case] {
        try formats.flatMap { format in
            let codec = try codec(format)
            let raw = [UInt8](try #require(try GoldenBlockTests.read(format).cases.first).block)
            func block(_ ratio: Float, _ protected: [Int]) throws -> [UInt8] {
                try encoded(
                    codec, raw, .transform, .ratio(ratio), protected: protected, tokens: GoldenBlockTests.tokens)
            }
            return try [
                ("ratio 16", block(16, [])), ("ratio 16, rows 0 and 7 protected", block(16, [0, 7])),
                ("ratio 3, 3 chunks of 5 states", codec.recoded(block(3, []), as: .chunks(lanes: 5, chunks: 3))),
                ("ratio 6, 2 chunks of 13 states", codec.recoded(block(6, []), as: .chunks(lanes: 13, chunks: 2))),
            ].map { name, block in
                let page = try decoded(codec, block, GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
                return Case(name: name, format: format, block: Data(block), page: Data(page))
            }
        }
    }

    private static func read() throws -> [Case] {
        try JSONDecoder().decode([Case].self, from: try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    @Test func oldBlocksDecodeToTheSameBytesOnEveryTier() throws {
        try GoldenGenerator.write("sections-2", GoldenSectionTests.make)
        let golden = try GoldenSectionTests.read()
        #expect(golden.count == 12)
        for kernels in KernelTable.all {
            for format in GoldenSectionTests.formats {
                let codec = try GoldenSectionTests.codec(format, kernels)
                for entry in golden where entry.format == format {
                    let block = [UInt8](entry.block)
                    let head = try header(block)
                    #expect(head.version == 2 && head.mode == .transform)
                    let output = try decoded(codec, block, GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
                    #expect(Data(output) == entry.page, "\(entry.name) of format \(format)")
                    // Version 1 with the same codes is the same page.
                    let stream = try codec.recoded(block, as: .stream)
                    #expect(
                        try decoded(codec, stream, GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens) == output)
                }
            }
        }
    }

    @Test func everyFlippedBitAndTruncationIsNoticed() throws {
        let block = [UInt8](try #require(try GoldenSectionTests.read().first).block)
        let codec = try GoldenSectionTests.codec(1)
        GoldenBlockTests.expectDamageIsNoticed(block, codec)
    }

    /// The section's own checks, with checksums that are right: what is cut or longer is refused, and whatever a byte says, a
    /// page comes of it or an error.
    @Test(arguments: [0, 1, 2, 3]) func sectionsThatDoNotAddUpAreRefused(index: Int) throws {
        let block = [UInt8](try GoldenSectionTests.read()[index].block)
        let codec = try GoldenSectionTests.codec(1)
        let section = try header(block).codedSection
        for length in 0...section.count where length != section.count {
            let short = resealed(Array(block[..<(section.lowerBound + length)]))
            #expect(throws: CodecError.self, "cut to \(length)") {
                try decoded(codec, short, GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
            }
        }
        for extra in 1...5 {
            let long = resealed(block + [UInt8](repeating: 0, count: extra))
            #expect(throws: CodecError.self, "\(extra) more") {
                try decoded(codec, long, GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
            }
        }
        var refused = 0
        for offset in section {
            for value in [0, 1, 0x7F, 0x80, 0xFF] as [UInt8] where value != block[offset] {
                var damaged = block
                damaged[offset] = value
                do {
                    _ = try decoded(
                        codec, resealed(damaged), GoldenBlockTests.layout, tokens: GoldenBlockTests.tokens)
                } catch is CodecError { refused += 1 }
            }
        }
        // Bits beside the symbols say what they say; whatever else is wrong does not come out even.
        #expect(refused > 3 * section.count)
    }

    /// A block with another length of its coded section, and checksums for it.
    private func resealed(_ bytes: [UInt8]) -> [UInt8] {
        var block = bytes
        let head = block.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 76, as: (UInt32, UInt32).self) }
        let coded = UInt32(block.count - BlockHeader.size) - head.0 - head.1
        block.withUnsafeMutableBytes { $0.storeBytes(of: coded, toByteOffset: 84, as: UInt32.self) }
        reseal(&block)
        return block
    }
}
