import CKernels

/// The transformed rows of one page, computed as far down the spectrum as rate control asks.
final class Coefficients {
    /// Coded rows.
    let rows: Int
    /// Squared norm of all weighted, centred rows.
    let energy: Double
    private let profile: Profile
    /// Finest step that the coefficients are precise enough for.
    let step: Float
    private let inputs: [ForwardInput]
    /// Of each basis: [component][row], as far as they are computed.
    private let values: [UnsafeMutablePointer<Float>]
    private var computed: [Int]
    // Owns the values.
    let memory: CoderMemory
    private var classOffsets: [[Int?]]

    /// - Parameters:
    ///   - weighted: [rows][rowElements].
    ///   - memory: used for nothing else as long as this lives.
    init(
        profile: Profile, weighted: UnsafePointer<Float>, rows: Int, step: Float, kernels: KernelTable,
        memory: CoderMemory
    ) {
        self.profile = profile
        self.rows = rows
        self.step = step
        self.memory = memory
        memory.reserve(bases: profile.bases.count)
        values = zip(profile.bases, memory.bases).map { $1.values.reserve($0.rank * rows) }
        computed = profile.bases.map { _ in 0 }
        classOffsets = profile.bases.map {
            [Int?](repeating: nil, count: ($0.rank + TransformCoder.group - 1) / TransformCoder.group)
        }
        let width = profile.geometry.rowElements
        inputs = zip(profile.bases, memory.bases).map {
            ForwardInput(
                values: weighted, rows: rows, stride: width, columns: $0.columns, step: step, kernels: kernels,
                memory: $1, integers: &memory.integers)
        }
        energy = inputs.reduce(0) { $0 + $1.energy } * Double(rows)
    }

    /// The leading `rank` components of a basis: [component][row].
    func leading(_ rank: Int, basis index: Int) -> UnsafePointer<Float> {
        prepare(rank, basis: index)
        return UnsafePointer(values[index])
    }

    /// Computes the components that a step keeps; returns how many those are of each basis.
    func prepare(stepIndex: Int) -> [Int] {
        profile.bases.enumerated().map { index, basis in
            let rank = basis.rank(stepIndex: stepIndex)
            prepare(rank, basis: index)
            return rank
        }
    }

    /// Computes as many components of a basis as are missing.
    private func prepare(_ rank: Int, basis index: Int) {
        let have = computed[index]
        guard rank > have else { return }
        // In whole tiles of digits, as those take no longer.
        let wanted = min(profile.bases[index].rank, have + (rank - have + 127) / 128 * 128)
        profile.bases[index].forward(have..<wanted, inputs[index], step: step, target: values[index] + have * rows)
        computed[index] = wanted
    }

    /// The codes of some components at one step: [component][row].
    func quantise(_ components: Range<Int>, basis index: Int, step: Float, codes: UnsafeMutablePointer<Int16>) {
        kv_quantise(
            leading(components.upperBound, basis: index) + components.lowerBound * rows, components.count * rows,
            1 / step, Int32(TransformCoder.codeLimit), codes)
    }

    /// Squared error of codes of some components, and their energy.
    func error(_ components: Range<Int>, basis index: Int, codes: UnsafePointer<Int16>?, step: Float) -> kv_sums {
        kv_error(
            leading(components.upperBound, basis: index) + components.lowerBound * rows, codes,
            components.count * rows, step)
    }

    /// Classes that a group of 64 components is away from the profile's; measured when first asked for.
    func classOffset(basis index: Int, group: Int, measure: () -> Int) -> Int {
        if let known = classOffsets[index][group] { return known }
        let offset = measure()
        classOffsets[index][group] = offset
        return offset
    }
}
