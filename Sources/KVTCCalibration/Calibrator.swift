import COpenBLAS
import FoundationEssentials
import KVTCCodec

/// Samples to profile: mean, weighted covariances and basis from most contexts; scales and entropy tables from the others.
///
/// The samples are read piece by piece, once where a row's covariance fits in memory and twice where it doesn't
/// (``StagedBasis``), and once more for what is held out.
public struct Calibrator<Samples: SampleSource> {
    private let samples: Samples
    private let weighting: Weighting
    private let model: String
    private let rankLimit: Int?
    private let layerGroups: Int
    private let limits: StagedBasis.Limits
    private let report: (CalibrationProgress) throws -> Void
    private let split: SampleSplit
    private var width: Int { samples.geometry.rowElements }

    /// - Parameters:
    ///   - rank: components kept of a row, by each of its bases a share; by default what ratios from 8 need, at most half of them, or 36 of 100 of rows
    ///     wider than `exactLimit`, whose profiles take gigabytes.
    ///   - layerGroups: bases, each of its share of the layers. The published method has one for keys and one for values.
    ///   - exactLimit: widest row whose covariance is decomposed as a whole; 24 576 elements (2.4 GB) by default.
    ///   - report: called now and then; what it throws ends the run.
    public init(
        samples: Samples, weighting: Weighting, model: String? = nil, rank: Int? = nil, layerGroups: Int = 1,
        exactLimit: Int? = nil, report: @escaping (CalibrationProgress) throws -> Void
    ) throws {
        var limits = StagedBasis.Limits.standard
        if let exactLimit { limits.exact = exactLimit }
        try self.init(
            samples: samples, weighting: weighting, model: model, rank: rank, layerGroups: layerGroups, limits: limits,
            report: report)
    }

    init(
        samples: Samples, weighting: Weighting, model: String? = nil, rank: Int? = nil, layerGroups: Int = 1,
        limits: StagedBasis.Limits,
        report: @escaping (CalibrationProgress) throws -> Void
    ) throws {
        self.samples = samples
        self.weighting = weighting
        self.model = model ?? samples.model
        self.limits = limits
        self.report = report
        try MatrixLibrary.load()
        rankLimit = rank
        self.layerGroups = layerGroups
        split = SampleSplit(samples.contexts)
        guard SampleSplit.count(split.training) >= 64, SampleSplit.count(split.heldOut) >= 16 else {
            throw CalibrationError(
                "\(samples.tokens) tokens are too few; some ten thousand are needed for a useful profile")
        }
    }

    /// Runs every step and returns the bytes of the profile file.
    public func run() throws -> Data { try calibrate().data() }

    /// Runs every step and writes the profile file; it appears whole or not at all.
    public func run(writingTo path: String) throws { try calibrate().write(to: path) }

    private func calibrate() throws -> ProfileFile {
        let (bases, isJoint, groups) = shape()
        var work = plan(groups, isJoint)
        let training =
            isJoint.contains(true) ? SampleSplit.thinned(split.training, to: 32 * limits.group) : split.training
        var moments = try Moments(
            width: width, total: SampleSplit.count(training), groups: groups.flatMap(\.self),
            stream: { try samples.stream(training, $0) }, explain: samples.explain, step: work.advance)
        try work.finish()
        let weights = try weighting.weights(geometry: samples.geometry, variances: moments.variances)
        let metric = try weighting.metric()
        moments.weigh(weights)
        var covariances = moments.release()
        if let metric {
            for (group, covariance) in zip(groups.joined(), covariances) { try metric.root.turn(covariance, of: group) }
        }
        var found: [StagedBasis] = []
        for (index, columns) in bases.enumerated() {
            var own = Array(covariances[..<groups[index].count])
            covariances.removeFirst(groups[index].count)
            let most = Calibrator.mostComponents(width: columns.width, isJoint: isJoint[index])
            let rank = min(columns.width, rankLimit(of: columns) ?? (isJoint[index] ? columns.width : most))
            let basis = try StagedBasis(
                columns: columns, rowElements: width, groups: groups[index], covariances: &own, rank: rank,
                step: work.advance)
            try work.finish()
            if isJoint[index] {
                try join(basis, mean: moments.mean, weights: weights, metric: metric, rank: rank, work: &work)
            }
            found.append(basis)
        }
        if rankLimit == nil {
            for ((basis, isJoint), step) in zip(zip(found, isJoint), steps(found)) {
                cut(basis, to: Calibrator.mostComponents(width: basis.width, isJoint: isJoint), step: step)
            }
        }
        var parts: [BasisPart] = []
        for (basis, step) in zip(found, steps(found)) {
            parts.append(BasisPart(columns: basis.columns, rank: basis.count, digits: BasisDigits(basis, step: step)))
            try work.finish()
        }
        let held = weightedHeldOut(mean: moments.mean, weights: weights, root: metric?.root)
        let tables = try TableTraining(parts: parts, rows: held, halves: samples.geometry.halves, step: work.advance)
        let metadata = ProfileMetadata(
            model: model, weights: samples.weightsDigest, rank: samples.rank, weighting: weighting.name,
            geometry: samples.geometry,
            bases: parts.map {
                .init(ranges: $0.columns.ranges, rank: $0.rank, digits: $0.digits.components.count)
            }, calibrationTokens: SampleSplit.count(split.training), heldOutTokens: tables.tokens,
            energy: tables.energy, captured: tables.captured, peaks: tables.peaks, expectations: tables.expectations,
            hasRoots: metric != nil)
        return ProfileFile(
            metadata: metadata, geometry: samples.geometry, mean: moments.mean, weight: weights, bases: parts,
            levels: tables.levels, frequencies: tables.frequencies, metric: metric)
    }

    /// The columns of each basis, whether it takes two stages, and what is decomposed at once.
    private func shape() -> (bases: [ColumnGroup], isJoint: [Bool], groups: [[ColumnGroup]]) {
        let bases = bases()
        let isJoint = bases.map { limits.exact < $0.width }
        let groups = zip(bases, isJoint).map { basis, isJoint in
            ColumnGroup.groups(of: basis, geometry: samples.geometry, limit: isJoint ? limits.group : basis.width)
        }
        return (bases, isJoint, groups)
    }

    /// What the run will take, as far as that can be said beforehand.
    /// - Parameter speed: of matrix products, of one of `threads` threads.
    public func forecast(speed: MatrixLibrary.Speed, threads: Int) -> CalibrationForecast {
        let (bases, isJoint, groups) = shape()
        let covariances = groups.joined().reduce(0) { $0 + $1.width * $1.width }
        // Beside its covariance a group has its eigenvectors, those being found, and their room to work in.
        let largest = groups.joined().map(\.width).max() ?? 0
        let components = zip(bases, isJoint).reduce(0) {
            $0 + min($1.0.width, rankLimit(of: $1.0) ?? Calibrator.mostComponents(width: $1.0.width, isJoint: $1.1))
        }
        let held = heldOutLimit
        let floats =
            covariances + 2 * largest * largest + samples.batch * width
            + max(components * width, held * (width + components))
        // Digits of up to two bytes, and what the library keeps for its threads.
        let rest = 2 * components * width + (64 << 20)
        return CalibrationForecast(
            tokens: samples.tokens, elements: width, memory: 4 * floats + rest,
            seconds: plan(groups, isJoint).total / (speed.gflops * 1e9 * Double(max(1, threads))))
    }

    /// Of the components that were asked for, those of a basis: the published method has so many for keys, and as many for values.
    private func rankLimit(of basis: ColumnGroup) -> Int? {
        guard let rankLimit, !weighting.isPublished else { return rankLimit }
        return (rankLimit * basis.width + width - 1) / width
    }

    private func bases() -> [ColumnGroup] {
        guard weighting.isPublished else { return ColumnGroup.bases(of: samples.geometry, parts: layerGroups) }
        guard let values = samples.geometry.tensors.firstIndex(where: { $0.role == .value }), values > 0 else {
            return [ColumnGroup([0..<width])]
        }
        let begin = samples.geometry.offsets[values]
        return [ColumnGroup([0..<begin]), ColumnGroup([begin..<width])]
    }

    /// The stages with their work. Eigenproblems take ten and more operations an element cubed at a fraction of the rate of
    /// matrix products; reading a number costs about as much as 300 operations.
    private func plan(_ groups: [[ColumnGroup]], _ isJoint: [Bool]) -> WorkPlan {
        var plan = WorkPlan(report: report)
        let tokens = Double(SampleSplit.count(split.training))
        let most = 32 * Double(limits.group)
        let first = isJoint.contains(true) ? min(tokens, most) : tokens
        let squares = groups.joined().reduce(0) { $0 + Double($1.width * $1.width) }
        plan.add("accumulating the covariance", work: first * (squares + 300 * Double(width)))
        var components = 0.0
        for (own, isJoint) in zip(groups, isJoint) {
            let columns = own.reduce(0.0) { $0 + Double($1.width) }
            let cubes = own.reduce(0.0) { $0 + Double($1.width) * Double($1.width) * Double($1.width) }
            plan.add("finding the basis", work: (isJoint ? 40 : 12) * cubes)
            if isJoint {
                let joint = min(Double(limits.joint), columns)
                // About half of a group's components are worth the bands' attention.
                let bands = 0.5 * columns * Double(limits.group)
                plan.add(
                    "joining the layers", work: min(tokens, most) * (2 * bands + bands + joint * joint + 300 * columns))
                plan.add(
                    "finding the joint basis", work: 40 * (joint * joint * joint + bands * Double(limits.group)))
            }
            plan.add("rounding the basis", work: 0.5 * columns * columns * 100)
            components += 0.5 * columns
        }
        let held = Double(heldOutLimit)
        plan.add("training the entropy tables", work: held * components * (2 * Double(width) + 60_000))
        return plan
    }

    /// The second stage: bands of the groups' components, each across all layers.
    private func join(
        _ basis: StagedBasis, mean: [Float], weights: [Float], metric: MetricRoots?, rank: Int, work: inout WorkPlan
    ) throws {
        // What is too weak to be kept now stays so: the second stage takes two thirds of the error away at best.
        let step = Calibrator.finestStep([basis])
        let bands = basis.bands(floor: Float(0.05 * step * step), joint: limits.joint, limit: limits.group)
        let ranges = SampleSplit.thinned(split.training, to: 32 * limits.group)
        let outputs = Matrix(rows: samples.batch, columns: basis.outputs)
        let scratch = Matrix(rows: samples.batch, columns: basis.groupWidth)
        var moments = try Moments(
            width: basis.outputs, total: SampleSplit.count(ranges), groups: bands,
            stream: { body in
                try samples.stream(ranges) { rows, count, runs in
                    weigh(rows, count, mean: mean, weights: weights)
                    metric?.root.apply(rows, count: count, stride: width, kernels: .best)
                    basis.transform(rows, count: count, into: outputs.values, scratch: scratch)
                    try body(outputs.values, count, runs)
                }
            }, explain: samples.explain, step: work.advance)
        try work.finish()
        var covariances = moments.release()
        try basis.join(bands, &covariances, rank: rank, step: work.advance)
        try work.finish()
    }

    /// Leaves out what an eighth of the bytes would have no room for: it is not worth its place in the file.
    private func cut(_ basis: StagedBasis, to most: Int, step: Double) {
        let kept = basis.variances.prefix { Double($0) >= 0.16 * step * step }.count
        basis.cut(to: max(256, min(kept, most)))
    }

    /// The finest step of each basis: one for all of a page, except for the published method, which has none.
    private func steps(_ bases: [StagedBasis]) -> [Double] {
        weighting.isPublished
            ? bases.map { Calibrator.finestStep([$0]) }
            : bases.map { [step = Calibrator.finestStep(bases)] _ in step }
    }

    /// The step of the lowest ratio that a profile is made for.
    private static func finestStep(_ bases: [StagedBasis]) -> Double {
        BasisDigits.step(
            variances: bases.flatMap(\.variances), elements: bases.reduce(0) { $0 + $1.width }, ratio: 8)
    }

    private static func mostComponents(width: Int, isJoint: Bool) -> Int {
        isJoint ? width * 36 / 100 : max(min(width, 256), width / 2)
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

    /// A few thousand tokens settle 64 tables and the scales; more would only cost memory (512 MB at most).
    private var heldOutLimit: Int { min(SampleSplit.count(split.heldOut), max(1024, min(8192, (128 << 20) / width))) }

    private func weightedHeldOut(mean: [Float], weights: [Float], root: HeadMatrices?) -> Matrix {
        let ranges = SampleSplit.thinned(split.heldOut, to: heldOutLimit)
        let result = Matrix(rows: SampleSplit.count(ranges), columns: width)
        var next = 0
        samples.stream(ranges) { rows, count, _ in
            weigh(rows, count, mean: mean, weights: weights)
            root?.apply(rows, count: count, stride: width, kernels: .best)
            (result.values + next * width).update(from: rows, count: count * width)
            next += count
        }
        return result
    }
}

/// A basis under construction.
struct BasisPart {
    var columns: ColumnGroup
    var rank: Int
    var digits: BasisDigits
}
