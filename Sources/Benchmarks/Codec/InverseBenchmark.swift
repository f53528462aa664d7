import ArgumentParser
import CKernels
import COpenBLAS
import Glibc
import KVTCCalibration
import KVTCCodec

/// Ways to compute the inverse transform of one page, on synthetic digits and codes; `InverseTransform.md` has the results.
struct InverseBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inverse",
        abstract: "Ways to compute the inverse transform, against one dense sgemm.",
        discussion:
            "One thread, its processor time. The shape of Llama-3.1-8B takes two gigabytes and is left out by --quick.")

    @OptionGroup var options: Options

    @Option(help: "Share of the codes that is not zero.")
    var nonzero = 0.25

    func run() throws {
        var report = Report()
        try MatrixLibrary.load()
        let speed = MatrixLibrary.measure()
        report.add(speed)
        try InverseShape(name: "smollm2", rank: 4147, seconds: 1380, width: 11_520, nonzero: nonzero, isDense: true)
            .measure(rounds: options.quick ? 3 : 9, against: speed, &report)
        if !options.quick {
            // As many components as calibration keeps of elements unless told otherwise, all of which the allocation uses at 16
            // times where the spectrum falls as SmolLM2's does; a third of them with a second digit, the most that is allowed. A
            // float basis of this shape would take six gigabytes: sgemm's side is its peak.
            let rank = 65_536 * 36 / 100
            try InverseShape(
                name: "llama8b", rank: rank, seconds: rank / 3, width: 65_536, nonzero: nonzero, isDense: false
            )
            .measure(rounds: 3, against: speed, &report)
        }
        try options.finish(report)
    }
}

private final class InverseShape {
    static let tokens = 64
    static let planes = 8
    let name: String
    let rank, digits, width: Int
    let isDense: Bool
    private let packed: UnsafeMutablePointer<UInt8>
    private var codes: [Int16]
    /// Codes of each plane as a tier wants them, by quads that lie side by side.
    private var quads: [UInt32: [[Int8]]] = [:]
    private var sums: [Int32]
    private var target: [Float]

    init(name: String, rank: Int, seconds: Int, width: Int, nonzero: Double, isDense: Bool) {
        (self.name, self.rank, self.width, self.isDense) = (name, rank, width, isDense)
        digits = (rank + seconds + 3) / 4 * 4
        let size = kv_packed_size(width, digits / 4)
        packed = .allocate(capacity: size)
        var random = SplitMix(state: 1)
        for start in stride(from: 0, to: size, by: 8) {
            UnsafeMutableRawPointer(packed + start).storeBytes(of: random.next(), as: UInt64.self)
        }
        let values = (0..<rank * InverseShape.tokens).map { _ in
            Double.random(in: 0..<1, using: &random) < nonzero ? Int16.random(in: 1...8, using: &random) : 0
        }
        codes = values
        target = [Float](repeating: 0, count: InverseShape.tokens * width)
        // Second digits meet the leading components' codes.
        let components = (0..<rank).map(Int32.init) + (0..<Int32(seconds)).map { $0 }
        sums = [Int32](repeating: 0, count: InverseShape.planes * InverseShape.tokens)
        for line in Set([kv_avx2(), kv_amx(), kv_neon()].compactMap { $0?.pointee.transform.line }) {
            quads[line] = planes.enumerated().map { index, plane in
                let whole = (plane.count + Int(line) - 1) / Int(line) * Int(line) * 4
                var packed = [Int8](repeating: 0, count: whole * InverseShape.tokens)
                packed.withUnsafeMutableBufferPointer { packed in
                    sums.withUnsafeMutableBufferPointer { sums in
                        let of = Array(components[plane.lowerBound * 4..<min(plane.upperBound * 4, components.count)])
                        kv_pack_codes(
                            values, InverseShape.tokens, of, of.count,
                            kv_digits(
                                level: 0, bits: 7, line: line, quads: packed.baseAddress,
                                sums: sums.baseAddress! + index * InverseShape.tokens))
                    }
                }
                return packed
            }
        }
    }

    deinit { packed.deallocate() }

    /// Quads of the digits that share an exponent: about what a profile has.
    private var planes: [Range<Int>] {
        let quads = digits / 4
        return (0..<InverseShape.planes).map {
            quads * $0 / InverseShape.planes..<quads * ($0 + 1) / InverseShape.planes
        }
    }

    /// As decoding goes about it: 256 columns at once, plane by plane.
    private func integers(_ table: UnsafePointer<kv_kernels>) {
        let tokens = UInt32(InverseShape.tokens)
        let (tile, atOnce) = (Int(KV_TILE), 8)
        let tileBytes = digits * tile
        for first in stride(from: 0, to: width / tile, by: atOnce) {
            for (index, (plane, codes)) in zip(planes, quads[table.pointee.transform.line]!).enumerated() {
                for number in first..<min(first + atOnce, width / tile) {
                    let (digits, from) = (packed + number * tileBytes, plane.lowerBound * 4 * tile)
                    var ahead = kv_ahead(
                        at: digits + tileBytes + from, stride: 1024, next: 0,
                        lines: UInt32(plane.count * 4 * tile / 64))
                    codes.withUnsafeBufferPointer { codes in
                        sums.withUnsafeBufferPointer { sums in
                            var term = kv_term(
                                codes: codes.baseAddress, sums: sums.baseAddress! + index * InverseShape.tokens,
                                first: UInt32(plane.lowerBound), quads: UInt32(plane.count), scale: 0.5, shift: 0,
                                depth: 8)
                            target.withUnsafeMutableBufferPointer { target in
                                withUnsafePointer(to: &term) { term in
                                    withUnsafeMutablePointer(to: &ahead) { ahead in
                                        var job = kv_inverse_job(
                                            tile: digits, quads: self.digits / 4, terms: term, term_count: 1, slab: 0,
                                            tokens: tokens, first: 0, count: tokens,
                                            target: target.baseAddress! + number * tile, stride: width, ahead: ahead)
                                        table.pointee.transform.inverse(&job)
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// For each code that is not zero a row of the basis times the code.
    private func sparse(_ basis: UnsafePointer<Float>) {
        target.withUnsafeMutableBufferPointer { target in
            for token in 0..<InverseShape.tokens {
                for component in 0..<rank where codes[component * InverseShape.tokens + token] != 0 {
                    cblas_saxpy(
                        Int32(width), Float(codes[component * InverseShape.tokens + token]), basis + component * width,
                        1,
                        target.baseAddress! + token * width, 1)
                }
            }
        }
    }

    func measure(rounds: Int, against speed: MatrixLibrary.Speed, _ report: inout Report) throws {
        let tokens = InverseShape.tokens
        let peak = Product(rows: 1024, width: 1024, rank: 1024)
        var sides = [Side("peak") { peak.run(rank: 1024) }]
        for table in [kv_avx2(), kv_avx512(), kv_amx(), kv_neon()].compactMap(\.self) {
            sides.append(Side(String(cString: table.pointee.name)) { self.integers(table) })
        }
        if isDense {
            let dense = Product(rows: tokens, width: width, rank: rank)
            sides.append(Side("sgemm") { dense.run(rank: self.rank) })
            // At 45 times a fifth of the components of a block's rank are in groups that are cut.
            let active = rank * 4 / 5
            sides.append(Side("sgemm_active") { dense.run(rank: active) })
            let basis = [Float](repeating: 0.5, count: rank * width)
            sides.append(Side("sparse") { basis.withUnsafeBufferPointer { self.sparse($0.baseAddress!) } })
        }
        let times = try interleaved(rounds: rounds, threadTime: true, sides)
        let peakRate = 2 * 1024.0 * 1024 * 1024 / times["peak"]!
        let flops = 2 * Double(rank * width * tokens)
        report.add("inverse.\(name).peak", peakRate / 1e9, "GFLOP/s of a square sgemm")
        for side in sides.map(\.name) where side != "peak" {
            report.add("inverse.\(name).\(side)", times[side]! * 1e3, "ms a page of 64 tokens")
            if let dense = times["sgemm"], side != "sgemm" {
                report.add(
                    ratio: "inverse_\(name)_\(side)_vs_sgemm", times[side]! / dense, target: nil, against: speed)
            }
        }
        let best = String(cString: kv_best().pointee.name)
        if let time = times[best] {
            report.add("inverse.\(name).tokens", Double(tokens) / time, "tokens/s of one thread, rank \(rank)")
            report.add(ratio: "gflops_share_\(name)", flops / time / peakRate, target: "≥ 0.7", against: speed)
        }
    }
}
