import COpenBLAS
import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel

/// Pages of a real model through every stage of the codec, one thread, against one dense sgemm of the same shape:
/// [coded rows × rank] · [rank × elements of a row].
struct PageBenchmark {
    private static let tokens = 64
    private static let layout = PageLayout(element: .f16)

    let codec: PageCodec
    let quick: Bool
    /// Raw blocks.
    private let pages: [[UInt8]]

    init(profile path: String, samples: String, quick: Bool) throws {
        let profile = try Profile.open(path: path)
        let codec = try PageCodec(geometry: profile.geometry, profile: profile)
        self.codec = codec
        self.quick = quick
        let set = try SampleSet(paths: [samples])
        var pages: [[UInt8]] = []
        for context in set.contexts where context.count >= 5 * PageBenchmark.tokens && pages.count < (quick ? 2 : 6) {
            let start = context.lowerBound + 4 * PageBenchmark.tokens
            let rows = set.cached(start..<start + PageBenchmark.tokens)
            pages.append(
                try rows.withUnsafeBytes {
                    try codec.wrap(
                        page: $0, layout: PageLayout(element: .f16, order: .tokenTensorHead),
                        tokens: PageBenchmark.tokens,
                        firstPosition: set.position(of: start))
                })
        }
        self.pages = pages
    }

    func run(_ report: inout Report) throws {
        report.add("codec.profile", Double(codec.profile!.packedBytes) / 1e6, "MB of digits")
        report.add(
            ratio: "profile_vs_float32", Double(codec.profile!.packedBytes) / Double(codec.profile!.float32Bytes),
            target: "≤ 0.333")
        try MatrixLibrary.load()
        let speed = MatrixLibrary.measure()
        report.add(speed)
        for ratio in [16, 45] as [Float] { try measure(ratio, against: speed, &report) }
    }

    private func encode(_ raw: [UInt8], _ ratio: Float) throws -> [UInt8] {
        try raw.withUnsafeBytes {
            try codec.encode(
                block: $0, mode: .transform, quality: .ratio(ratio), protected: RowSet(count: PageBenchmark.tokens))
        }
    }

    private func measure(_ ratio: Float, against speed: MatrixLibrary.Speed, _ report: inout Report) throws {
        let blocks = try pages.map { try encode($0, ratio) }
        let streams = try blocks.map { try codec.recoded($0, as: .stream) }
        let decoder = codec.takeDecoder()
        let geometry = codec.geometry
        let bytes = PageBenchmark.layout.pageBytes(geometry: geometry, tokens: PageBenchmark.tokens)
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
        defer { output.deallocate() }
        var header: BlockHeader!
        func eachBlock(_ of: [[UInt8]]? = nil, _ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
            for block in of ?? blocks { try block.withUnsafeBytes { try body($0) } }
        }
        func symbols(_ of: [[UInt8]]) throws {
            try eachBlock(of) {
                header = try decoder.check($0)
                try decoder.openExact($0, header)
                try decoder.openCoded($0, header)
            }
        }
        var (ranks, active, digits): ([Int], Int, Int) = ([], 0, 0)
        try eachBlock {
            try decoder.open($0)
            ranks.append(decoder.page.rank)
            active += decoder.page.active
            digits += decoder.digits
        }
        let product = Product(rows: PageBenchmark.tokens, width: geometry.rowElements, rank: ranks.max() ?? 0)
        let times = try interleaved(
            rounds: quick ? 3 : 15, threadTime: true,
            [
                Side("check") { try eachBlock { _ = try decoder.check($0) } },
                Side("open") { try eachBlock { try decoder.open($0) } },
                Side("open_and_symbols") { try symbols(blocks) },
                Side("version1") { try symbols(streams) },
                Side("decode") {
                    try eachBlock {
                        try decoder.open($0)
                        try decoder.write(layers: 0..<geometry.layers, layout: PageBenchmark.layout, into: output)
                    }
                },
                Side("first_layer") {
                    try eachBlock {
                        try decoder.open($0)
                        try decoder.write(
                            layers: 0..<1, layout: PageBenchmark.layout,
                            into: UnsafeMutableRawBufferPointer(rebasing: output[..<(bytes / geometry.layers)]))
                    }
                },
                Side("sgemm") { for rank in ranks { product.run(rank: rank) } },
                Side("encode") { for raw in pages { _ = try encode(raw, ratio) } },
            ])
        codec.giveBack(decoder)
        let (name, count) = ("codec.\(Int(ratio))x", Double(pages.count))
        let decode = times["decode"]!
        let entropy = times["open_and_symbols"]! - times["check"]!
        report.add("\(name).rank", Double(ranks.reduce(0, +)) / count, "components")
        report.add("\(name).active", Double(active) / count, "components")
        report.add("\(name).digits", Double(digits) / count, "basis bytes a column")
        report.add("\(name).check", times["check"]! / decode, "of decode")
        report.add("\(name).entropy", entropy / decode, "of decode")
        report.add("\(name).arrange", (times["open"]! - times["open_and_symbols"]!) / decode, "of decode")
        report.add("\(name).decode", decode / count * 1e3, "ms a page")
        report.add("\(name).decode_rate", count * Double(bytes) / decode / 1e9, "GB/s of elements")
        report.add("\(name).decode_tokens", count * Double(PageBenchmark.tokens) / decode, "tokens/s")
        report.add("\(name).sgemm", times["sgemm"]! / count * 1e3, "ms a page")
        report.add("\(name).encode", times["encode"]! / count * 1e3, "ms a page")
        report.add(
            ratio: "decode_vs_sgemm_\(Int(ratio))x", decode / times["sgemm"]!, target: "≤ 0.7, better 0.4",
            against: speed)
        let bytes1 = streams.reduce(0) { $0 + $1.count }
        report.add("\(name).version1_bytes", Double(bytes1) / count, "bytes a page as version 1 has it")
        report.add("\(name).bytes", Double(blocks.reduce(0) { $0 + $1.count }) / count, "bytes a page")
        report.add(
            ratio: "entropy_vs_version1_\(Int(ratio))x", entropy / (times["version1"]! - times["check"]!), target: "≤ 1"
        )
        report.add(ratio: "entropy_share_\(Int(ratio))x", entropy / decode, target: "≤ 0.1")
        report.add(ratio: "encode_vs_decode_\(Int(ratio))x", decode / times["encode"]!, target: "≥ 0.5")
        report.add(
            ratio: "first_layer_of_page_\(Int(ratio))x", times["first_layer"]! / decode, target: "≤ 0.2, better 0.125")
    }
}

/// A matrix product of one page's shape.
final class Product {
    private let rows, width: Int
    private let left, right, target: UnsafeMutablePointer<Float>

    init(rows: Int, width: Int, rank: Int) {
        openblas_set_num_threads(1)
        (self.rows, self.width) = (rows, width)
        func fill(_ count: Int) -> UnsafeMutablePointer<Float> {
            let values = UnsafeMutablePointer<Float>.allocate(capacity: max(count, 1))
            for index in 0..<count { values[index] = Float(index % 17) - 8 }
            return values
        }
        left = fill(rows * rank)
        right = fill(rank * width)
        target = fill(rows * width)
    }

    deinit {
        left.deallocate()
        right.deallocate()
        target.deallocate()
    }

    func run(rank: Int) {
        cblas_sgemm(
            CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(rows), Int32(width), Int32(rank), 1, left, Int32(rank),
            right, Int32(width), 0, target, Int32(width))
    }
}
