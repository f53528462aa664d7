import ArgumentParser
import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel

/// The decode that 'deploy/checks/instructions' counts the instructions of.
struct FixedDecode: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fixed-decode",
        abstract: "Code pages of samples once, and decode them inside a function that a profiler can find.",
        discussion: """
            With --write the blocks are made and kept; without, they are read and decoded in the function countedDecode, \
            for 'valgrind --tool=callgrind --toggle-collect=*countedDecode*'.
            """)

    @Option(help: "The profile.", completion: .file()) var profile: String
    @Option(help: "Samples to code, for --write.", completion: .file()) var samples: String?
    @Option(help: "Where the blocks are kept: a directory.", completion: .directory) var blocks: String
    @Flag(help: "Make the blocks.") var write = false

    private static let tokens = 64
    private static let pages = 4

    func run() throws {
        let profile = try Profile.open(path: profile)
        let codec = try PageCodec(geometry: profile.geometry, profile: profile)
        if write { return try makeBlocks(codec) }
        let work = DecodeWork(codec: codec, tokens: Self.tokens)
        for number in 0..<Self.pages { work.blocks.append([UInt8](try Data(contentsOf: file(number)))) }
        // Once before, so that memory and plans are there: what is counted is the steady state.
        work.run()
        countedDecode(work)
        if let failure = work.failure { throw failure }
    }

    private func file(_ number: Int) -> URL { URL(fileURLWithPath: "\(blocks)/\(number).block") }

    private func makeBlocks(_ codec: PageCodec) throws {
        guard let samples else { throw ValidationError("--write needs --samples.") }
        let set = try SampleSet(paths: [samples])
        let starts = set.contexts.flatMap {
            stride(from: $0.lowerBound, to: $0.upperBound - Self.tokens + 1, by: Self.tokens)
        }.prefix(Self.pages)
        guard starts.count == Self.pages else { throw Mismatch("the samples hold fewer than \(Self.pages) pages") }
        for (number, start) in starts.enumerated() {
            let page = set.cached(start..<start + Self.tokens)
            let layout = PageLayout(element: .f16, order: .tokenTensorHead)
            let raw = try page.withUnsafeBytes {
                try codec.wrap(page: $0, layout: layout, tokens: Self.tokens, firstPosition: set.position(of: start))
            }
            let block = try raw.withUnsafeBytes {
                try codec.encode(
                    block: $0, mode: .transform, quality: .ratio(16), protected: RowSet(count: Self.tokens))
            }
            try Data(block).write(to: file(number))
        }
    }
}

private final class DecodeWork {
    let codec: PageCodec
    var blocks: [[UInt8]] = []
    var failure: (any Error)?
    private var output: [UInt8]

    init(codec: PageCodec, tokens: Int) {
        self.codec = codec
        output = [UInt8](repeating: 0, count: PageLayout().pageBytes(geometry: codec.geometry, tokens: tokens))
    }

    func run() {
        do {
            for block in blocks {
                try block.withUnsafeBytes { bytes in
                    try output.withUnsafeMutableBytes {
                        try codec.decode(
                            block: bytes, layers: 0..<codec.geometry.layers, layout: PageLayout(), into: $0)
                    }
                }
            }
        } catch { failure = error }
    }
}

/// Apart, so that a profiler can find it by its name.
@inline(never)
private func countedDecode(_ work: DecodeWork) { work.run() }
