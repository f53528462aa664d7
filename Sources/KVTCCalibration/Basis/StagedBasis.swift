import COpenBLAS
import KVTCCodec

/// Principal components of rows: by one decomposition where their covariance is small enough, else by two stages of smaller ones.
///
/// The first stage decomposes groups of columns, a layer's keys and values say. The second takes their components in order
/// of variance: the strongest of all groups jointly, the next ones in bands, each band across all layers. The result is an
/// orthonormal basis. What it leaves uncorrected is the correlation between components of different bands, and that of
/// those too weak to be kept (block schemes of distributed PCA: Qu et al., "Principal component analysis for dimension
/// reduction in massive distributed data sets", ICDM 2002).
final class StagedBasis: ComponentSource {
    /// Bounds on the sizes of the decompositions.
    struct Limits {
        /// Rows up to this width are decomposed as a whole.
        var exact: Int
        /// Widest group of columns, and widest band but the first.
        var group: Int
        /// Width of the first band.
        var joint: Int

        static let standard = Limits(exact: 24_576, group: 2048, joint: 6144)
    }

    /// Decompositions side by side: group g's components, strongest first, are the outputs from `starts[g]`.
    private struct Stage {
        var groups: [ColumnGroup] = []
        var starts: [Int] = []
        var variances: [[Float]] = []
        /// [component][input] of each group.
        var vectors: [Matrix] = []

        mutating func append(_ group: ColumnGroup, _ variances: [Float], _ vectors: Matrix) {
            starts.append((starts.last ?? 0) + (groups.last?.width ?? 0))
            groups.append(group)
            self.variances.append(variances)
            self.vectors.append(vectors)
        }
    }

    private struct Component {
        var stage, group, index: Int
        var variance: Float
    }

    /// The elements of a row that the components span.
    let columns: ColumnGroup
    var width: Int { columns.width }
    var count: Int { order.count }
    var variances: [Float] { order.map(\.variance) }
    private let rowElements: Int
    private var stages: [Stage]
    /// Outputs of the first stage that the second takes on: a prefix of each group's.
    private var taken: [Int]
    /// Strongest first.
    private var order: [Component] = []

    /// The first stage.
    /// - Parameters:
    ///   - columns: what the groups cover, of rows of `rowElements`.
    ///   - covariances: of the weighted columns of each group; given up one by one, so that memory is.
    ///   - rank: components wanted; no more are kept.
    init(
        columns: ColumnGroup, rowElements: Int, groups: [ColumnGroup], covariances: inout [Matrix], rank: Int,
        step: (Double) throws -> Void
    ) throws {
        self.columns = columns
        self.rowElements = rowElements
        taken = groups.map { _ in 0 }
        stages = [try StagedBasis.decompose(groups, &covariances, rank: rank, step: step)]
        rankComponents(rank)
    }

    private static func decompose(
        _ groups: [ColumnGroup], _ covariances: inout [Matrix], rank: Int, step: (Double) throws -> Void
    ) throws -> Stage {
        var stage = Stage()
        let work = groups.map { Double($0.width) * Double($0.width) * Double($0.width) }
        let total = work.reduce(0, +)
        var done = 0.0
        for (group, own) in zip(groups, work) {
            let (values, vectors) = try Eigen.leading(
                min(rank, group.width), of: covariances.removeFirst(), seed: 1
            ) { try step((done + own * $0) / total) }
            stage.append(group, values, vectors)
            done += own
        }
        return stage
    }

    private func rankComponents(_ rank: Int) {
        order = []
        for (index, stage) in stages.enumerated() {
            for (group, variances) in stage.variances.enumerated() {
                for component in (index == 0 ? taken[group] : 0)..<variances.count {
                    order.append(
                        Component(stage: index, group: group, index: component, variance: variances[component]))
                }
            }
        }
        // Ties are broken by place, so that the order is the same on every run.
        order.sort { ($1.variance, $0.stage, $0.group, $0.index) < ($0.variance, $1.stage, $1.group, $1.index) }
        cut(to: rank)
    }

    /// Leaves out all but the strongest components.
    func cut(to rank: Int) { order.removeLast(max(0, order.count - rank)) }

    // MARK: - Second stage

    /// Bands of the first stage's components with at least the variance `floor`: the strongest `joint` of all groups, then as
    /// many bands as it takes of at most `limit`.
    func bands(floor: Float, joint: Int, limit: Int) -> [ColumnGroup] {
        let variances = stages[0].variances
        let ranked = variances.joined().filter { $0 >= floor }.sorted(by: >)
        var bands: [ColumnGroup] = []
        var (end, size) = (0, min(joint, ranked.count))
        taken = variances.map { _ in 0 }
        while end < ranked.count {
            end = min(end + size, ranked.count)
            size = limit
            let threshold = ranked[end - 1]
            var ranges: [Range<Int>] = []
            for (group, own) in variances.enumerated() {
                let next = own.prefix { $0 >= threshold }.count
                if next > taken[group] {
                    ranges.append(stages[0].starts[group] + taken[group]..<stages[0].starts[group] + next)
                }
                taken[group] = max(next, taken[group])
            }
            if !ranges.isEmpty { bands.append(ColumnGroup(ranges)) }
        }
        return bands
    }

    /// Width of the first stage's outputs.
    var outputs: Int { stages[0].groups.reduce(0) { $0 + $1.width } }

    /// outputs[row] = the first stage's components, those that the bands take, of weighted, centred rows.
    func transform(_ rows: UnsafePointer<Float>, count: Int, into target: UnsafeMutablePointer<Float>, scratch: Matrix)
    {
        let (stage, outputs) = (stages[0], outputs)
        for (index, group) in stage.groups.enumerated() where taken[index] > 0 {
            group.gather(rows, count: count, stride: rowElements, into: scratch.values)
            cblas_sgemm(
                CblasRowMajor, CblasNoTrans, CblasTrans, Int32(count), Int32(taken[index]), Int32(group.width), 1,
                scratch.values, Int32(group.width), stage.vectors[index].values, Int32(group.width), 0,
                target + stage.starts[index], Int32(outputs))
        }
    }

    /// Decomposes the bands from their covariances.
    func join(_ bands: [ColumnGroup], _ covariances: inout [Matrix], rank: Int, step: (Double) throws -> Void) throws {
        stages.append(try StagedBasis.decompose(bands, &covariances, rank: rank, step: step))
        rankComponents(rank)
    }

    /// Widest group of the first stage.
    var groupWidth: Int { stages[0].groups.reduce(0) { max($0, $1.width) } }

    // MARK: - Components

    func fill(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        target.update(repeating: 0, count: range.count * width)
        // Groups name columns of the whole row.
        let places = stages[0].groups.map { group in
            ColumnGroup(
                group.ranges.map { range in
                    let origin = columns.origin(of: range.lowerBound)!
                    return range.lowerBound - origin..<range.upperBound - origin
                })
        }
        let parts = Array(order[range])
        for (row, part) in parts.enumerated() where part.stage == 0 {
            let (group, vectors) = (places[part.group], stages[0].vectors[part.group])
            group.scatter(
                vectors.values + part.index * group.width, count: 1, into: target + row * width, stride: width)
        }
        let joined = parts.indices.filter { parts[$0].stage == 1 }
        if !joined.isEmpty { expand(joined.map { ($0, parts[$0]) }, places, into: target) }
    }

    /// Second-stage components as rows: through the first stage's vectors, of which a band takes a few a group.
    private func expand(
        _ parts: [(row: Int, part: Component)], _ places: [ColumnGroup], into target: UnsafeMutablePointer<Float>
    ) {
        let outputs = outputs
        let turns = Matrix(rows: parts.count, columns: outputs)
        for (index, (_, part)) in parts.enumerated() {
            let (band, vectors) = (stages[1].groups[part.group], stages[1].vectors[part.group])
            band.scatter(
                vectors.values + part.index * band.width, count: 1, into: turns.values + index * outputs,
                stride: outputs)
        }
        let used = Set(parts.map(\.part.group)).flatMap { stages[1].groups[$0].ranges }
        let own = Matrix(rows: parts.count, columns: groupWidth)
        for (index, group) in places.enumerated() {
            let whole = stages[0].starts[index]..<stages[0].starts[index] + group.width
            let ranges = used.map { $0.clamped(to: whole) }.filter { !$0.isEmpty }
            guard let low = ranges.map(\.lowerBound).min(), let high = ranges.map(\.upperBound).max() else { continue }
            cblas_sgemm(
                CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(parts.count), Int32(group.width), Int32(high - low),
                1, turns.values + low, Int32(outputs),
                stages[0].vectors[index].values + (low - whole.lowerBound) * group.width, Int32(group.width), 0,
                own.values, Int32(group.width))
            for (line, (row, _)) in parts.enumerated() {
                group.scatter(own.values + line * group.width, count: 1, into: target + row * width, stride: width)
            }
        }
    }
}

/// Components of unit norm that are made when they are needed.
protocol ComponentSource {
    /// Elements of a component.
    var width: Int { get }
    /// Number of components, strongest first.
    var count: Int { get }
    var variances: [Float] { get }
    /// Fills `target` with [range][width] values.
    func fill(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>)
}
