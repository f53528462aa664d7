import COpenBLAS
import KVTCCodec
import KVTCModel

/// What errors of a cache cost a model, to second order: the mean outer product, within each head, of the derivatives of
/// its log-likelihood. Half of e·F·e is the KL divergence that an error e causes (Amari, "Natural gradient works efficiently
/// in learning", 1998).
public struct FisherInformation: Sendable {
    /// Share of a head's mean that is added to the diagonal: what few documents say of the directions in a head is shrunk
    /// towards none having been seen (Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
    /// matrices", 2004).
    private static let shrinkage: Float = 0.3

    /// What losing a head as a whole costs beside its Fisher information, as a share of what the mean head's loss costs. Heads
    /// differ by five orders of magnitude, but Fisher information is of small errors and of a model in exact arithmetic: a
    /// head's loss is no small error, and an engine that rounds activations answers to any. With SmolLM2, 0.01 and 0.04
    /// lower the divergence at ratios of 8 and 16 by 2 and 7 %, at 45 by 0 and 2 %.
    private static let leastCost = 0.05

    private let geometry: Geometry
    private let moments: HeadMatrices
    /// Cost of a unit of squared error of each head's elements.
    private let means: [Double]

    /// Reads all gradients of a model.
    /// - Parameter geometry: of the samples that they go with.
    public init(_ gradients: SampleSet, geometry: Geometry, report: @escaping (CalibrationProgress) throws -> Void)
        throws
    {
        guard gradients.geometry == geometry else {
            throw CalibrationError("the gradients are of other tensors than the samples: capture both from one model")
        }
        try MatrixLibrary.load()
        self.geometry = geometry
        let width = geometry.rowElements
        let blocks = HeadMatrices.blocks(of: geometry)
        var moments = [Float](repeating: 0, count: HeadMatrices.count(for: geometry))
        var done = 0
        var plan = WorkPlan(report: report)
        plan.add("reading the gradients", work: 1)
        try gradients.stream([0..<gradients.tokens]) { rows, count, runs in
            var next = 0
            for block in blocks {
                let size = Int32(block.count)
                moments.withUnsafeMutableBufferPointer {
                    cblas_sgemm(
                        CblasRowMajor, CblasTrans, CblasNoTrans, size, size, Int32(count), 1 / Float(gradients.tokens),
                        rows + block.lowerBound, Int32(width), rows + block.lowerBound, Int32(width), 1,
                        $0.baseAddress! + next, size)
                }
                next += block.count * block.count
            }
            done += count
            guard moments.allSatisfy(\.isFinite) else { throw gradients.explain(rows, runs) }
            try plan.advance(Double(done) / Double(gradients.tokens))
        }
        try plan.finish()
        var ofHeads: [Double] = []
        self.moments = HeadMatrices(geometry: geometry, values: moments)
        self.moments.forEach { block, matrix in
            ofHeads.append(HeadMatrices.trace(matrix, block.count) / Double(block.count))
        }
        guard let least = ofHeads.filter({ $0 > 0 }).min() else { throw CalibrationError("all gradients are zero") }
        // A head that was never seen to matter is taken for the least that was.
        means = ofHeads.map { max($0, least) }
    }

    /// Cost of a unit of squared error of each element, and no less than `leastCost` allows.
    /// - Parameter variances: of the elements.
    func costs(variances: [Double]) -> [Double] {
        let heads = moments.blocks.map { (width: $0.count, variance: variances[$0].reduce(0, +)) }
        let energy = zip(means, heads).reduce(0) { $0 + $1.0 * $1.1.variance }
        let least = FisherInformation.leastCost * energy / Double(heads.count)
        return zip(means, heads).flatMap { mean, head in
            [Double](repeating: mean + least / max(head.variance, 1e-12), count: head.width)
        }
    }

    /// The metric of rows that are weighted by the costs: of mean 1 in every head.
    func metric() throws -> MetricRoots {
        var values: [Float] = []
        var scales = means.map { 1 / Float($0) }.makeIterator()
        moments.forEach { block, matrix in
            let (size, scale) = (block.count, scales.next()!)
            for row in 0..<size {
                for column in 0..<size {
                    // Both halves alike, whatever order the sums were made in.
                    let mean = (matrix[row * size + column] + matrix[column * size + row]) / 2 * scale
                    let own = mean + (row == column ? FisherInformation.shrinkage : 0)
                    values.append(own / (1 + FisherInformation.shrinkage))
                }
            }
        }
        return try MetricRoots(HeadMatrices(geometry: geometry, values: values), geometry: geometry)
    }
}

extension Weighting {
    /// Nil where errors cost their squared norm.
    func metric() throws -> MetricRoots? {
        if case .gradients(let information) = self { try information.metric() } else { nil }
    }
}

/// A metric with its square root, which takes rows to where their plain norm is what they cost, and the way back.
struct MetricRoots {
    let root, inverse: HeadMatrices

    init(_ metric: HeadMatrices, geometry: Geometry) throws {
        var (roots, inverses): ([Float], [Float]) = ([], [])
        try metric.forEach { block, matrix in
            let vectors = Matrix(rows: block.count, columns: block.count)
            vectors.values.update(from: matrix, count: block.count * block.count)
            let values = try Eigen.symmetric(vectors).map { max($0, 1e-6).squareRoot() }
            roots += MetricRoots.compose(vectors, values)
            inverses += MetricRoots.compose(vectors, values.map { 1 / $0 })
        }
        // As the profile will hold them.
        func rounded(_ values: [Float]) -> HeadMatrices {
            HeadMatrices(geometry: geometry, triangles: HeadMatrices(geometry: geometry, values: values).triangles)
        }
        root = rounded(roots)
        inverse = rounded(inverses)
    }

    /// Σ value · vector · vectorᵀ over the rows of `vectors`.
    private static func compose(_ vectors: Matrix, _ values: [Float]) -> [Float] {
        let size = vectors.rows
        let scaled = Matrix(rows: size, columns: size)
        for row in 0..<size {
            for column in 0..<size {
                scaled.values[row * size + column] = values[row] * vectors.values[row * size + column]
            }
        }
        var result = [Float](repeating: 0, count: size * size)
        cblas_sgemm(
            CblasRowMajor, CblasTrans, CblasNoTrans, Int32(size), Int32(size), Int32(size), 1, vectors.values,
            Int32(size), scaled.values, Int32(size), 0, &result, Int32(size))
        return result
    }
}

extension HeadMatrices {
    static func trace(_ matrix: UnsafePointer<Float>, _ size: Int) -> Double {
        (0..<size).reduce(0) { $0 + Double(matrix[$1 * (size + 1)]) }
    }

    /// The covariance of a group's columns after the matrix has been applied to the rows: matrix · covariance · matrix.
    /// - Parameter covariance: lower triangle, column-major.
    /// - Throws: where the group cuts a head in two.
    func turn(_ covariance: Matrix, of group: ColumnGroup) throws {
        let size = group.width
        for column in 0..<size {
            for row in column + 1..<max(size, column + 1) {
                covariance.values[row * size + column] = covariance.values[column * size + row]
            }
        }
        let places = Dictionary(uniqueKeysWithValues: zip(group.columns, 0..<size))
        let widest = blocks.map(\.count).max() ?? 0
        let strip = Matrix(rows: widest, columns: size)
        try forEach { block, matrix in
            guard let first = places[block.lowerBound] else {
                guard !block.contains(where: { places[$0] != nil }) else { throw HeadMatrices.cut }
                return
            }
            let (count, wide) = (Int32(block.count), Int32(size))
            guard places[block.upperBound - 1] == first + block.count - 1 else { throw HeadMatrices.cut }
            // Rows of the block, then its columns.
            let rows = covariance.values + first * size
            cblas_sgemm(
                CblasRowMajor, CblasNoTrans, CblasNoTrans, count, wide, count, 1, matrix, count, rows, wide, 0,
                strip.values, wide)
            rows.update(from: strip.values, count: block.count * size)
            cblas_sgemm(
                CblasRowMajor, CblasNoTrans, CblasNoTrans, wide, count, count, 1, covariance.values + first, wide,
                matrix, count, 0, strip.values, count)
            for row in 0..<size {
                (covariance.values + row * size + first).update(
                    from: strip.values + row * block.count, count: block.count)
            }
        }
    }

    private static var cut: CalibrationError {
        CalibrationError("a group of columns cuts a head in two; a larger --exact-limit avoids groups")
    }
}
