import ArgumentParser
import Glibc
import KVTCCalibration
import KVTCCodec
import KVTCModel

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Time the codec on this machine, one thread.",
        discussion: """
            Codes pages of 64 tokens with every mode, checks that exact modes return every bit, and prints the speed beside \
            that of copying the same bytes; below, which kernels multiply matrices in calibration, and how fast. With samples of your model (safetensors, see 'kvtcctl calibrate --help') the \
            ratios are real; without, the pages hold noise. Needs no daemon.

            EXAMPLES
              kvtcctl bench
              kvtcctl bench --samples held-out.safetensors \\
                  --profile model.kvtc.safetensors --ratio 16 --ratio 45
            """)

    @Option(help: "A profile; adds the modes that need one.", completion: .file(extensions: ["safetensors"]))
    var profile: String?

    @Option(help: "Samples to code.", completion: .file(extensions: ["safetensors"]))
    var samples: String?

    @Option(
        parsing: .unconditionalSingleValue, help: "Ratio of the coded modes that have one; may be repeated.",
        transform: Parsed.ratio)
    var ratio: [Float] = [16, 45]

    @Option(parsing: .unconditional, help: "Pages to code.", transform: Parsed.whole(1...1024))
    var pages = 8

    @Flag(help: "Print one line of JSON.")
    var json = false

    struct Result: Encodable {
        var modes: [Line]
        /// What calibration runs on.
        var matrixProducts: MatrixLibrary.Speed
    }

    struct Line: Encodable {
        var mode: String
        var ratio, distortion, encodeTokensPerSecond, decodeTokensPerSecond, decodeOverCopy: Double
    }

    func validate() throws {
        guard profile == nil || samples != nil else {
            throw ValidationError("--profile needs --samples of the same model.")
        }
    }

    func run() throws {
        CutFile.explain()
        do {
            try MatrixLibrary.load()
            let profile = try profile.map { try Profile.open(path: $0) }
            let (geometry, data, positions) = try content()
            let codec = try PageCodec(geometry: geometry, profile: profile)
            var lines = try [Mode.raw, .lossless, .quant8, .quant4].map {
                try measure(codec, data, positions, "\($0)", $0, .ratio(1))
            }
            if profile != nil {
                for (mode, ratio) in ratio.flatMap({ [(Mode.transform, $0), (.kvtc, $0)] }) {
                    lines.append(
                        try measure(
                            codec, data, positions, "\(mode) \(Text.decimal(Double(ratio), 0))×", mode, .ratio(ratio)))
                }
            }
            let speed = MatrixLibrary.measure()
            if json {
                print(try jsonLine(Result(modes: lines, matrixProducts: speed)))
                return
            }
            var table = TextTable([
                ("MODE", .left), ("RATIO", .right), ("DISTORTION", .right), ("ENCODE", .right), ("DECODE", .right),
                ("DECODE / COPY", .right),
            ])
            for line in lines {
                table.add([
                    line.mode, Text.decimal(line.ratio, 2), Text.decimal(line.distortion, 4),
                    "\(Text.count(UInt64(line.encodeTokensPerSecond))) tok/s",
                    "\(Text.count(UInt64(line.decodeTokensPerSecond))) tok/s", Text.decimal(line.decodeOverCopy, 1),
                ])
            }
            Terminal.show(table.lines)
            Terminal.show(Terminal.wrapped(speed.text))
            if speed.isWeak {
                Terminal.show(["Others would be much faster: is OPENBLAS_CORETYPE set, or OpenBLAS very old?"])
            }
        } catch let error as CodecError {
            complain("\(error)")
            throw ExitCode.failure
        } catch let error as CalibrationError {
            complain("\(error)")
            throw ExitCode.failure
        }
    }

    /// Pages of 64 tokens in the order [token][tensor][head][dim], with the position of each.
    private func content() throws -> (Geometry, [[UInt8]], [Int]) {
        if let samples {
            let set = try SampleSet(paths: [samples])
            let starts = set.contexts.flatMap { context in
                stride(from: context.lowerBound + 64, to: context.upperBound - 63, by: 64)
            }.prefix(pages)
            guard !starts.isEmpty else { throw CalibrationError("\(samples) holds no page of 64 tokens") }
            return (set.geometry, starts.map { set.cached($0..<$0 + 64) }, starts.map { set.position(of: $0) })
        }
        let geometry = try Geometry(
            tensors: (0..<30).flatMap { layer in
                [Role.key, .value].map { TensorGeometry(layer: layer, role: $0, heads: 3, headDim: 64) }
            })
        var random = SystemRandomNumberGenerator()
        let data = (0..<pages).map { _ in
            (0..<64 * geometry.rowElements).flatMap { _ -> [UInt8] in
                // Finite halves around 1: exponents 13 to 16.
                let bits = UInt16.random(in: 0...0x0FFF, using: &random) | 0x3400
                return [UInt8(bits & 255), UInt8(bits >> 8)]
            }
        }
        return (geometry, data, (0..<pages).map { 64 * $0 })
    }

    private func measure(
        _ codec: PageCodec, _ data: [[UInt8]], _ positions: [Int], _ name: String, _ mode: Mode, _ quality: Quality
    ) throws -> Line {
        let layout = PageLayout(element: .f16, order: .tokenTensorHead)
        var (encode, decode, copy) = (0.0, 0.0, 0.0)
        var (stored, distortion) = (0, 0.0)
        for (page, position) in zip(data, positions) {
            let raw = try page.withUnsafeBytes {
                try codec.wrap(page: $0, layout: layout, tokens: 64, firstPosition: position)
            }
            var block: [UInt8] = []
            encode += try seconds {
                block = try raw.withUnsafeBytes {
                    try codec.encode(block: $0, mode: mode, quality: quality, protected: RowSet(count: 64))
                }
            }
            var output = [UInt8](repeating: 0, count: page.count)
            decode += try seconds {
                try block.withUnsafeBytes { bytes in
                    try output.withUnsafeMutableBytes {
                        try codec.decode(block: bytes, layers: 0..<codec.geometry.layers, layout: layout, into: $0)
                    }
                }
            }
            let header = try block.withUnsafeBytes { try BlockHeader.parse($0) }
            guard !header.mode.isExact || output == page else {
                throw CalibrationError("mode \(name) did not return the page; this machine or build is faulty")
            }
            copy += seconds { output.withUnsafeMutableBytes { $0.copyBytes(from: page) } }
            stored += block.count
            distortion += Double(header.distortion) / Double(data.count)
        }
        let tokens = Double(64 * data.count)
        return Line(
            mode: name, ratio: Double(data.reduce(0) { $0 + $1.count }) / Double(stored), distortion: distortion,
            encodeTokensPerSecond: tokens / encode, decodeTokensPerSecond: tokens / decode,
            decodeOverCopy: decode / copy)
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        func now() -> Double {
            var time = timespec()
            clock_gettime(CLOCK_MONOTONIC, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        let start = now()
        try body()
        return now() - start
    }
}
