import COpenBLAS
import FoundationEssentials
import KVTCCodec

/// Samples to profile: mean, weighted covariance and basis from most contexts; scales and entropy tables from the others.
public struct Calibrator {
    private let samples: SampleSet
    private let weighting: Weighting
    private let model: String
    private let rankLimit: Int?
    private let report: (CalibrationProgress) throws -> Void
    private let training: [Range<Int>]
    private let heldOut: [Range<Int>]
    private var width: Int { samples.geometry.rowElements }

    /// Largest row whose covariance fits in 2.4 GB.
    public static let maximumRowElements = 24_576
    private static let chunk = 1024

    /// - Parameters:
    ///   - rank: components kept of each basis; by default 36 of 100, enough for ratios from about 10.
    ///   - report: called now and then; what it throws ends the run.
    public init(
        samples: SampleSet, weighting: Weighting, model: String? = nil, rank: Int? = nil,
        report: @escaping (CalibrationProgress) throws -> Void
    ) throws {
        self.samples = samples
        self.weighting = weighting
        self.model = model ?? samples.model
        rankLimit = rank
        self.report = report
        guard samples.geometry.rowElements <= Calibrator.maximumRowElements else {
            throw CalibrationError(
                "\(samples.geometry.rowElements) elements a token; at most \(Calibrator.maximumRowElements) are handled"
            )
        }
        (training, heldOut) = Calibrator.split(samples.contexts, tokens: samples.tokens)
        guard Calibrator.count(training) >= 64, Calibrator.count(heldOut) >= 16 else {
            throw CalibrationError(
                "\(samples.tokens) tokens are too few; some ten thousand are needed for a useful profile")
        }
    }

    /// Every tenth context is held out; of fewer than five, the last tenth of each.
    static func split(_ contexts: [Range<Int>], tokens: Int) -> (training: [Range<Int>], heldOut: [Range<Int>]) {
        if contexts.count >= 5 {
            let held = contexts.indices.filter { $0 % 10 == min(9, contexts.count - 1) }
            return (contexts.indices.filter { !held.contains($0) }.map { contexts[$0] }, held.map { contexts[$0] })
        }
        let cuts = contexts.map { $0.upperBound - max($0.count / 10, 1) }
        return (
            zip(contexts, cuts).map { $0.lowerBound..<$1 }.filter { !$0.isEmpty },
            zip(contexts, cuts).map { $1..<$0.upperBound }
        )
    }

    private static func count(_ ranges: [Range<Int>]) -> Int { ranges.reduce(0) { $0 + $1.count } }

    /// Runs every step and returns the bytes of the profile file.
    public func run() throws -> Data {
        let (mean, variances) = try moments()
        let weights = try weighting.weights(geometry: samples.geometry, variances: variances)
        var parts: [BasisPart] = []
        let ranges = bases()
        for (index, range) in ranges.enumerated() {
            let share = 0.8 / Double(ranges.count)
            let start = 0.1 + Double(index) * share
            let covariance = try covariance(range, mean: mean, weights: weights, from: start, share: share * 0.55)
            let rank = min(range.count, rankLimit ?? max(min(range.count, 256), range.count * 36 / 100))
            let (values, vectors) = try Eigen.leading(rank, of: covariance, seed: 1) {
                try report(.init(stage: "finding the basis", fraction: start + share * (0.55 + 0.45 * $0)))
            }
            let step = BasisDigits.step(variances: values, elements: range.count, ratio: 10)
            let wide = BasisDigits.wideComponents(vectors, variances: values, step: step)
            parts.append(BasisPart(columns: range, rank: rank, digits: BasisDigits(vectors, wide: wide)))
        }
        let training = try TableTraining(parts: parts, rows: weightedHeldOut(mean: mean, weights: weights)) {
            try report(.init(stage: "training the entropy tables", fraction: 0.92 + 0.08 * $0))
        }
        return try write(mean: mean, weights: weights, parts: parts, training: training)
    }

    private func bases() -> [Range<Int>] {
        guard case .published = weighting,
            let values = samples.geometry.tensors.firstIndex(where: { $0.role == .value }), values > 0
        else { return [0..<width] }
        return [0..<samples.geometry.offsets[values], samples.geometry.offsets[values]..<width]
    }

    /// Calls `body` with chunks of de-rotated rows.
    private func stream(
        _ ranges: [Range<Int>], _ body: (UnsafeMutablePointer<Float>, Int) throws -> Void
    ) rethrows {
        let buffer = Matrix(rows: Calibrator.chunk, columns: width)
        for range in ranges {
            for start in stride(from: range.lowerBound, to: range.upperBound, by: Calibrator.chunk) {
                let part = start..<min(start + Calibrator.chunk, range.upperBound)
                samples.rows(part, into: buffer.values)
                try body(buffer.values, part.count)
            }
        }
    }

    private func moments() throws -> (mean: [Float], variances: [Double]) {
        var sums = [Double](repeating: 0, count: width)
        var squares = sums
        let total = Calibrator.count(training)
        var done = 0
        try stream(training) { rows, count in
            for row in 0..<count {
                let at = rows + row * width
                for column in 0..<width {
                    let value = Double(at[column])
                    sums[column] += value
                    squares[column] += value * value
                }
            }
            done += count
            try report(.init(stage: "reading samples", fraction: 0.1 * Double(done) / Double(total)))
        }
        let count = Double(total)
        guard sums.allSatisfy(\.isFinite) else { throw CalibrationError("the samples hold NaN or infinities") }
        return (
            sums.map { Float($0 / count) }, zip(sums, squares).map { max(0, $1 / count - $0 / count * ($0 / count)) }
        )
    }

    private func weigh(_ rows: UnsafeMutablePointer<Float>, _ count: Int, mean: [Float], weights: [Float]) {
        mean.withUnsafeBufferPointer { mean in
            weights.withUnsafeBufferPointer { weights in
                for row in 0..<count {
                    let at = rows + row * width
                    for column in 0..<width { at[column] = (at[column] - mean[column]) * weights[column] }
                }
            }
        }
    }

    /// Lower triangle (column-major) of the covariance of the columns `range`.
    private func covariance(
        _ range: Range<Int>, mean: [Float], weights: [Float], from start: Double, share: Double
    ) throws -> Matrix {
        let result = Matrix(rows: range.count, columns: range.count)
        let total = Calibrator.count(training)
        var done = 0
        try stream(training) { rows, count in
            weigh(rows, count, mean: mean, weights: weights)
            cblas_ssyrk(
                CblasColMajor, CblasLower, CblasNoTrans, Int32(range.count), Int32(count), 1 / Float(total),
                rows + range.lowerBound, Int32(width), 1, result.values, Int32(range.count))
            done += count
            try report(
                .init(stage: "accumulating the covariance", fraction: start + share * Double(done) / Double(total)))
        }
        return result
    }

    private func weightedHeldOut(mean: [Float], weights: [Float]) throws -> Matrix {
        // A few thousand tokens settle 64 tables; more would only cost memory.
        var budget = 8192
        var ranges: [Range<Int>] = []
        for range in heldOut where budget > 0 {
            ranges.append(range.lowerBound..<min(range.upperBound, range.lowerBound + budget))
            budget -= range.count
        }
        let result = Matrix(rows: Calibrator.count(ranges), columns: width)
        var next = 0
        stream(ranges) { rows, count in
            weigh(rows, count, mean: mean, weights: weights)
            (result.values + next * width).update(from: rows, count: count * width)
            next += count
        }
        return result
    }

    private func write(mean: [Float], weights: [Float], parts: [BasisPart], training: TableTraining) throws -> Data {
        let metadata = ProfileMetadata(
            model: model, weighting: weighting.name, geometry: samples.geometry,
            bases: parts.map {
                .init(
                    begin: $0.columns.lowerBound, end: $0.columns.upperBound, rank: $0.rank,
                    digits: $0.digits.components.count)
            }, calibrationTokens: Calibrator.count(self.training), heldOutTokens: training.tokens,
            energy: training.energy, expectations: training.expectations)
        return try ProfileWriter.file(
            metadata: metadata, geometry: samples.geometry, mean: mean, weight: weights,
            bases: zip(parts, training.levels).map { part, levels in
                .init(
                    levels: levels, digits: part.digits.digits, components: part.digits.components,
                    exponents: part.digits.exponents)
            }, frequencies: training.frequencies)
    }
}

/// A basis under construction.
struct BasisPart {
    var columns: Range<Int>
    var rank: Int
    var digits: BasisDigits
}
