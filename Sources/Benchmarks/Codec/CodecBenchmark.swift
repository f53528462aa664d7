import ArgumentParser
import Foundation
import Glibc
import KVTCCodec
import KVTCModel

struct CodecBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "codec",
        abstract: "Encode and decode, against copying the same bytes and against a matrix product.",
        discussion: """
            Real pages need a profile and samples as 'deploy/setup --demo' and 'deploy/demo' leave them; without them that \
            part is skipped.
            """)

    @OptionGroup var options: Options

    @Option(help: "A profile file (default: the newest in ~/.cache/kvtc/profiles).", completion: .file())
    var profile: String?

    @Option(help: "A sample file of the same model (default: the first in ~/.cache/kvtc/lab).", completion: .file())
    var samples: String?

    func run() throws {
        var report = Report()
        try measureExactModes(&report)
        if let profile = profile ?? cached("profiles", ".kvtc.safetensors"),
            let samples = samples ?? cached("lab", ".safetensors")
        {
            try PageBenchmark(profile: profile, samples: samples, quick: options.quick).run(&report)
        }
        try options.finish(report)
    }

    private func cached(_ directory: String, _ suffix: String) -> String? {
        let path = "\(NSHomeDirectory())/.cache/kvtc/\(directory)"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return names.filter { $0.hasSuffix(suffix) }.min().map { "\(path)/\($0)" }
    }

    private func measureExactModes(_ report: inout Report) throws {
        let codec = try PageCodec(geometry: try Geometry(tensors: Shapes.smolLM2))
        let layout = PageLayout(element: .f16)
        let bytes = layout.pageBytes(geometry: codec.geometry, tokens: 64)
        let page = noisePage(bytes: bytes, seed: 1)
        let raw = try page.withUnsafeBytes { try codec.wrap(page: $0, layout: layout, tokens: 64, firstPosition: 0) }
        let lossless = try raw.withUnsafeBytes {
            try codec.encode(block: $0, mode: .lossless, quality: .ratio(1), protected: RowSet(count: 64))
        }
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
        defer { output.deallocate() }
        func decode(_ block: [UInt8]) throws {
            try block.withUnsafeBytes {
                try codec.decode(block: $0, layers: 0..<codec.geometry.layers, layout: layout, into: output)
            }
        }
        let times = try interleaved(
            rounds: options.quick ? 5 : 25,
            [
                Side("copy") { page.withUnsafeBytes { output.copyMemory(from: $0) } },
                Side("decode_raw") { try decode(raw) },
                Side("decode_lossless") { try decode(lossless) },
            ])
        for (name, time) in times.sorted(by: { $0.key < $1.key }) {
            report.add("codec.\(name)", Double(bytes) / time / 1e9, "GB/s")
        }
    }
}
