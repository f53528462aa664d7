import COpenBLAS
import KVTCCodec

/// Mean of the rows and covariances within groups of their columns, from one pass.
struct Moments {
    private(set) var mean: [Float] = []
    /// About the mean, of every element; 0 for columns of no group.
    private(set) var variances: [Double] = []
    /// Lower triangle, column-major, of each group's covariance.
    private(set) var covariances: [Matrix] = []
    private let groups: [ColumnGroup]

    /// Rows in batches: calls its argument with [count][width] values, which it may change, and the tokens they are of.
    typealias Stream = ((UnsafeMutablePointer<Float>, Int, [Range<Int>]) throws -> Void) throws -> Void

    /// - Parameters:
    ///   - total: number of rows that `stream` brings.
    ///   - groups: of the columns of rows of `width`.
    ///   - explain: what to say of a batch with values that are not finite.
    init(
        width: Int, total: Int, groups: [ColumnGroup], stream: @escaping Stream,
        explain: (UnsafePointer<Float>, [Range<Int>]) -> CalibrationError, step: (Double) throws -> Void
    ) throws {
        self.groups = groups
        covariances = groups.map { Matrix(rows: $0.width, columns: $0.width) }
        let scratch = Matrix(rows: SampleSplit.batch, columns: groups.map(\.width).max() ?? 0)
        var sums = [Double](repeating: 0, count: width)
        // Products are summed about a value near the mean: about zero, channels with large means would lose their variance.
        var centre: [Float] = []
        let ones = [Float](repeating: 1, count: SampleSplit.batch)
        var partial = [Float](repeating: 0, count: width)
        let covariances = covariances
        var done = 0
        try stream { rows, count, runs in
            if centre.isEmpty {
                Moments.columnSums(rows, count, width, ones, &partial)
                centre = partial.map { $0.isFinite ? $0 / Float(count) : 0 }
            }
            Moments.subtract(centre, from: rows, count: count)
            Moments.columnSums(rows, count, width, ones, &partial)
            guard partial.allSatisfy(\.isFinite) else { throw explain(rows, runs) }
            for column in 0..<width { sums[column] += Double(partial[column]) }
            for (group, covariance) in zip(groups, covariances) {
                var (from, lead) = (UnsafePointer(rows + group.ranges[0].lowerBound), width)
                if group.ranges.count > 1 {
                    group.gather(rows, count: count, stride: width, into: scratch.values)
                    (from, lead) = (UnsafePointer(scratch.values), group.width)
                }
                cblas_ssyrk(
                    CblasColMajor, CblasLower, CblasNoTrans, Int32(group.width), Int32(count), 1 / Float(total), from,
                    Int32(lead), 1, covariance.values, Int32(group.width))
            }
            done += count
            try step(Double(done) / Double(total))
        }
        finish(sums.map { Float($0 / Double(total)) }, about: centre)
    }

    private mutating func finish(_ shift: [Float], about centre: [Float]) {
        mean = zip(centre, shift).map { $0 + $1 }
        variances = [Double](repeating: 0, count: mean.count)
        for (group, covariance) in zip(groups, covariances) {
            let columns = group.columns
            let own = columns.map { shift[$0] }
            cblas_ssyr(
                CblasColMajor, CblasLower, Int32(group.width), -1, own, 1, covariance.values, Int32(group.width))
            for (index, column) in columns.enumerated() {
                variances[column] = Double(max(0, covariance.values[index * (group.width + 1)]))
            }
        }
    }

    /// Multiplies rows and columns of each covariance by the weights of its elements.
    func weigh(_ weights: [Float]) {
        for (group, covariance) in zip(groups, covariances) {
            let own = group.columns.map { weights[$0] }
            for column in 0..<group.width {
                let at = covariance.values + column * group.width
                for row in column..<group.width { at[row] *= own[row] * own[column] }
            }
        }
    }

    /// Gives the covariances up.
    mutating func release() -> [Matrix] {
        defer { covariances = [] }
        return covariances
    }

    private static func columnSums(
        _ rows: UnsafePointer<Float>, _ count: Int, _ width: Int, _ ones: [Float], _ sums: inout [Float]
    ) {
        cblas_sgemv(
            CblasRowMajor, CblasTrans, Int32(count), Int32(width), 1, rows, Int32(width), ones, 1, 0, &sums, 1)
    }

    /// rows[row][column] −= centre[column].
    private static func subtract(_ centre: [Float], from rows: UnsafeMutablePointer<Float>, count: Int) {
        centre.withUnsafeBufferPointer { centre in
            for row in 0..<count {
                let at = rows + row * centre.count
                for column in 0..<centre.count { at[column] -= centre[column] }
            }
        }
    }
}
