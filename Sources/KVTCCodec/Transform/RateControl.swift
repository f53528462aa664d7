import CKernels
import KVTCModel

/// What one page's coded rows may cost.
struct Budget {
    var quality: Quality
    /// Bytes of the block beside the coded section and the protected rows.
    var overhead: Int
    /// Raw bytes of the coded rows.
    var rawBytes: Int

    /// Whether a coded section is on the far side of what is asked: small enough for a ratio, or beyond a distortion bound.
    func isCoarse(bytes: Int, distortion: Double) -> Bool { fits(bytes: bytes) || !allows(distortion: distortion) }

    func fits(bytes: Int) -> Bool {
        quality.ratio.map { Double(bytes + overhead) * Double($0) <= Double(rawBytes) } ?? false
    }

    /// Whether a result keeps the promise of a distortion bound; a basis cut short can't keep every one.
    func allows(distortion: Double) -> Bool { quality.distortion.map { distortion <= Double($0) } ?? true }

    /// Of two neighbours on either side of the boundary, the one that keeps the promise: the coarse one for a ratio.
    func choose<T>(fine: T, coarse: T, distortion: (T) -> Double) -> T {
        allows(distortion: distortion(coarse)) ? coarse : fine
    }
}

/// Finds the quantiser step for one page: the finest whose block fits a ratio, or the coarsest within a distortion bound,
/// or with both the finer of the two.
struct RateControl {
    let profile: Profile
    let budget: Budget

    /// A step with what it costs.
    struct Plan {
        var stepIndex: Int
        var allocation: TransformCoder.Kept
        /// Coded section, bytes.
        var bytes: Int
        var distortion: Double
    }

    /// Steps outside ±2^25 are not tried, nor those so fine that codes would pass the limit: rows of 32-bit elements would all
    /// be kept exact where a low ratio asks for many bits. Profiles that don't know the strongest row count on 16
    /// standard deviations of the strongest component.
    private var steps: ClosedRange<Int> {
        let strongest = profile.bases.compactMap(\.levels.first).max() ?? 0
        let finest = profile.metadata.peaks.map(ProfileMetadata.finestStep) ?? strongest - 640
        return max(-1600, min(1600, finest))...1600
    }

    /// The plan for these rows: gallops from the calibrated guess until `fine` and `coarse` bracket the answer, then bisects.
    func search(_ coefficients: Coefficients) -> Plan {
        let steps = steps
        let first = max(steps.lowerBound, min(predictedStep(), steps.upperBound))
        // What will be needed, in one go: the forward transform takes many components in less time than a few at a time.
        _ = coefficients.prepare(stepIndex: first - Allocation.finer.max()! - 4)
        var fine = plan(first, coefficients)
        var coarse = fine
        var stride = 8
        while isCoarse(fine), fine.stepIndex > steps.lowerBound {
            coarse = fine
            fine = plan(max(fine.stepIndex - stride, steps.lowerBound), coefficients)
            stride *= 2
        }
        while !isCoarse(coarse), coarse.stepIndex < steps.upperBound {
            fine = coarse
            coarse = plan(min(coarse.stepIndex + stride, steps.upperBound), coefficients)
            stride *= 2
        }
        while coarse.stepIndex - fine.stepIndex > 1 {
            let middle = plan((coarse.stepIndex + fine.stepIndex) / 2, coefficients)
            if isCoarse(middle) { coarse = middle } else { fine = middle }
        }
        return Allocation(profile: profile, budget: budget).refine(
            budget.choose(fine: fine, coarse: coarse) { $0.distortion }, coefficients)
    }

    private func isCoarse(_ plan: Plan) -> Bool { budget.isCoarse(bytes: plan.bytes, distortion: plan.distortion) }

    /// The step that calibration saw meet the quality.
    func predictedStep() -> Int {
        let table = profile.metadata.expectations
        let byRatio = budget.quality.ratio.flatMap { ratio in
            table.first { $0.ratio >= Double(ratio) } ?? table.last
        }
        let byDistortion = budget.quality.distortion.flatMap { bound in
            table.last { $0.distortion <= Double(bound) } ?? table.first
        }
        return [byRatio, byDistortion].compactMap { $0?.stepIndex }.min() ?? 0
    }

    /// Quantises at one step, the same for all groups, and counts exactly what it costs.
    func plan(_ stepIndex: Int, _ coefficients: Coefficients) -> Plan {
        let allocation = allocation(stepIndex, coefficients)
        var tally = Tally()
        withScratch(coefficients) { scratch in
            forEachGroup(allocation) { index, first, option in
                tally.add(
                    groupCost(
                        option, basis: index, first: first, rank: allocation.ranks[index], stepIndex: stepIndex,
                        coefficients, codes: scratch))
            }
        }
        return makePlan(stepIndex, allocation, tally, coefficients)
    }

    /// What the groups cost so far, in their order.
    struct Tally {
        private(set) var bits: UInt64 = 0
        private(set) var error = CodingError()

        mutating func add(_ group: GroupCost) {
            bits += group.bits
            error.add(error: group.error, energy: group.energy)
        }
    }

    func makePlan(
        _ stepIndex: Int, _ allocation: TransformCoder.Kept, _ tally: Tally, _ coefficients: Coefficients
    ) -> Plan {
        Plan(
            stepIndex: stepIndex, allocation: allocation,
            bytes: TransformCoder.fixedBytes(ranks: allocation.ranks) + Int((tally.bits + 511) / 512),
            distortion: tally.error.total(of: coefficients.energy)
                / (profile.metadata.energy * Double(max(coefficients.rows, 1))))
    }

    /// The codes of a plan, basis by basis: [component][row], zeros where a group is cut.
    func codes(_ plan: Plan, _ coefficients: Coefficients) -> [[Int16]] {
        let rows = coefficients.rows
        var codes = plan.allocation.ranks.map { [Int16](repeating: 0, count: $0 * rows) }
        forEachGroup(plan.allocation) { index, first, option in
            guard option != TransformCoder.cutGroup else { return }
            codes[index].withUnsafeMutableBufferPointer {
                coefficients.quantise(
                    first..<min(first + TransformCoder.group, plan.allocation.ranks[index]), basis: index,
                    step: RateControl.step(option, plan.stepIndex), codes: $0.baseAddress! + first * rows)
            }
        }
        return codes
    }

    func forEachGroup(_ allocation: TransformCoder.Kept, _ body: (_ basis: Int, _ first: Int, _ option: UInt8) -> Void)
    {
        for (index, options) in allocation.options.enumerated() {
            for (group, option) in options.enumerated() { body(index, group * TransformCoder.group, option) }
        }
    }

    /// Room for the codes of one group.
    func withScratch<R>(_ coefficients: Coefficients, _ body: (UnsafeMutablePointer<Int16>) -> R) -> R {
        withUnsafeTemporaryAllocation(of: Int16.self, capacity: TransformCoder.group * coefficients.rows) {
            body($0.baseAddress!)
        }
    }

    /// The ranks that suit a step, and the common step for every group, each with the symbol tables that suit its
    /// coefficients.
    func allocation(_ stepIndex: Int, _ coefficients: Coefficients) -> TransformCoder.Kept {
        let ranks = coefficients.prepare(stepIndex: stepIndex)
        return .init(
            ranks: ranks, options: ranks.indices.map { commonStep(basis: $0, rank: ranks[$0], stepIndex, coefficients) }
        )
    }

    private func commonStep(basis index: Int, rank: Int, _ stepIndex: Int, _ coefficients: Coefficients) -> [UInt8] {
        let groups = (rank + TransformCoder.group - 1) / TransformCoder.group
        return (0..<groups).map { group in
            TransformCoder.option(
                octaves: 0,
                drift: coefficients.drift(basis: index, group: group) {
                    drift(basis: index, first: group * TransformCoder.group, stepIndex, coefficients)
                })
        }
    }

    /// Classes between the profile's scale of a group and what codes this page's coefficients in the fewest bits. It hardly
    /// depends on the step: measured at one, it serves the others.
    private func drift(basis index: Int, first: Int, _ stepIndex: Int, _ coefficients: Coefficients) -> Int {
        let components = first..<min(first + TransformCoder.group, profile.bases[index].rank)
        return withScratch(coefficients) { codes in
            // The codes are the same whichever tables code them.
            coefficients.quantise(components, basis: index, step: TransformCoder.step(stepIndex), codes: codes)
            return drift { drift in
                groupBits(
                    TransformCoder.option(octaves: 0, drift: drift), basis: profile.bases[index], components,
                    stepIndex: stepIndex, codes: codes, rows: coefficients.rows)
            }
        }
    }

    /// The drift that takes the fewest bits, which fall towards it from either side.
    private func drift(_ bits: (Int) -> UInt64) -> Int {
        var best = (drift: 0, bits: bits(0))
        for direction in [-1, 1] {
            var next = best.drift + direction
            while TransformCoder.driftRange.contains(next) {
                let cost = bits(next)
                guard cost < best.bits else { break }
                best = (next, cost)
                next += direction
            }
        }
        return best.drift
    }

    /// Bits (in 1/64) of a group's codes, [component][row] from its first component on.
    private func groupBits(
        _ option: UInt8, basis: Basis, _ components: Range<Int>, stepIndex: Int, codes: UnsafePointer<Int16>, rows: Int
    ) -> UInt64 {
        components.reduce(0) { bits, component in
            let entropyClass = TransformCoder.entropyClass(
                level: basis.levels[component], stepIndex: stepIndex, option: option)
            return bits
                + kv_cost(
                    profile.tables.table(entropyClass), codes + (component - components.lowerBound) * rows, rows,
                    UInt32(EntropyTables.shift(class: entropyClass)))
        }
    }

    /// What coding a group one way costs: bits (in 1/64), squared error, and the energy of its coefficients.
    struct GroupCost {
        var bits: UInt64
        var error, energy: Double
    }

    private static func step(_ option: UInt8, _ stepIndex: Int) -> Float {
        TransformCoder.step(stepIndex + 64 * TransformCoder.octaves(option))
    }

    /// Quantises one group one way; `codes` has room for it.
    func groupCost(
        _ option: UInt8, basis index: Int, first: Int, rank: Int, stepIndex: Int, _ coefficients: Coefficients,
        codes: UnsafeMutablePointer<Int16>
    ) -> GroupCost {
        let components = first..<min(first + TransformCoder.group, rank)
        guard option != TransformCoder.cutGroup else {
            let energy = coefficients.error(components, basis: index, codes: nil, step: 0).energy
            return GroupCost(bits: 0, error: energy, energy: energy)
        }
        let step = RateControl.step(option, stepIndex)
        coefficients.quantise(components, basis: index, step: step, codes: codes)
        let bits = groupBits(
            option, basis: profile.bases[index], components, stepIndex: stepIndex, codes: codes,
            rows: coefficients.rows)
        let sums = coefficients.error(components, basis: index, codes: codes, step: step)
        return GroupCost(bits: bits, error: sums.error, energy: sums.energy)
    }
}

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
    private var drifts: [[Int?]]

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
        drifts = profile.bases.map {
            [Int?](repeating: nil, count: ($0.rank + TransformCoder.group - 1) / TransformCoder.group)
        }
        let width = profile.geometry.rowElements
        inputs = zip(profile.bases, memory.bases).map {
            ForwardInput(
                values: weighted + $0.columns.lowerBound, rows: rows, stride: width, columns: $0.columns.count,
                step: step, kernels: kernels, memory: $1, integers: &memory.integers)
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
    func drift(basis index: Int, group: Int, measure: () -> Int) -> Int {
        if let known = drifts[index][group] { return known }
        let drift = measure()
        drifts[index][group] = drift
        return drift
    }
}
