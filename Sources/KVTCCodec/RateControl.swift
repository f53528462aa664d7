import CKernels

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
        var codes: [[Int16]]
        /// Coded section, bytes.
        var bytes: Int
        var distortion: Double
    }

    /// Steps outside ±2^25 are not tried, nor those so fine that codes of the strongest component, at 16 standard deviations,
    /// would pass the limit: rows of 32-bit elements would all be kept exact where a low ratio asks for many bits.
    private var steps: ClosedRange<Int> {
        let strongest = profile.bases.compactMap(\.levels.first).max() ?? 0
        return max(-1600, min(1600, strongest - 640))...1600
    }

    /// The plan for these rows: gallops from the calibrated guess until `fine` and `coarse` bracket the answer, then bisects.
    func search(_ coefficients: Coefficients) -> Plan {
        let steps = steps
        var fine = plan(max(steps.lowerBound, min(predictedStep(), steps.upperBound)), coefficients)
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

    /// Quantises at one step and counts exactly what it costs.
    /// - Parameter options: of each group of each basis; by default all groups keep the common step.
    func plan(_ stepIndex: Int, options: [[UInt8]]? = nil, _ coefficients: Coefficients) -> Plan {
        let rows = coefficients.rows
        let ranks = profile.bases.map { $0.rank(stepIndex: stepIndex) }
        // All at once: the forward transform takes many components as fast as a few.
        for (index, basis) in profile.bases.enumerated() {
            coefficients.prepare(basis.rank(stepIndex: stepIndex - Allocation.finer.max()! - 4), basis: index)
        }
        let options = options ?? ranks.indices.map { commonStep(basis: $0, rank: ranks[$0], stepIndex, coefficients) }
        var plan = Plan(
            stepIndex: stepIndex, allocation: .init(ranks: ranks, options: options), codes: [], bytes: 0, distortion: 0)
        var cost: UInt64 = 0
        var error = coefficients.energy
        for (index, rank) in ranks.enumerated() {
            var codes = [Int16](repeating: 0, count: rank * rows)
            for (group, option) in options[index].enumerated() {
                let first = group * TransformCoder.group
                let part = RateControl.groupCost(
                    option, basis: index, first: first, rank: rank, stepIndex: stepIndex, profile: profile,
                    coefficients,
                    codes: &codes)
                cost += part.bits
                error += part.error - part.energy
            }
            plan.codes.append(codes)
        }
        plan.bytes = TransformCoder.fixedBytes(ranks: ranks) + Int((cost + 511) / 512)
        plan.distortion = max(0, error) / (profile.metadata.energy * Double(max(rows, 1)))
        return plan
    }

    /// The common step for every group, each with the symbol tables that suit its coefficients.
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
        let rows = coefficients.rows
        let components = first..<min(first + TransformCoder.group, profile.bases[index].rank)
        let values = coefficients.leading(components.upperBound, basis: index)
        // The codes are the same whichever tables code them.
        let codes = [Int16](unsafeUninitializedCapacity: components.count * rows) { buffer, count in
            values.withUnsafeBufferPointer {
                kv_quantise(
                    $0.baseAddress! + first * rows, components.count * rows, 1 / TransformCoder.step(stepIndex),
                    Int32(TransformCoder.codeLimit), buffer.baseAddress!)
            }
            count = components.count * rows
        }
        func bits(_ drift: Int) -> UInt64 {
            codes.withUnsafeBufferPointer {
                RateControl.groupBits(
                    TransformCoder.option(octaves: 0, drift: drift), basis: profile.bases[index], components,
                    stepIndex: stepIndex, profile: profile, codes: $0.baseAddress!, rows: rows)
            }
        }
        // The bits fall towards the best class from either side.
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
    private static func groupBits(
        _ option: UInt8, basis: Basis, _ components: Range<Int>, stepIndex: Int, profile: Profile,
        codes: UnsafePointer<Int16>, rows: Int
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

    /// Bits (in 1/64), squared error and energy of one group coded one way; its codes go to `codes`, [component][row].
    static func groupCost(
        _ option: UInt8, basis index: Int, first: Int, rank: Int, stepIndex: Int, profile: Profile,
        _ coefficients: Coefficients, codes: inout [Int16]
    ) -> (bits: UInt64, error: Double, energy: Double) {
        let rows = coefficients.rows
        let components = first..<min(first + TransformCoder.group, rank)
        let cells = components.lowerBound * rows..<components.upperBound * rows
        let isCut = option == TransformCoder.cutGroup
        let step = isCut ? 0 : TransformCoder.step(stepIndex + 64 * TransformCoder.octaves(option))
        return coefficients.leading(rank, basis: index).withUnsafeBufferPointer { values in
            codes.withUnsafeMutableBufferPointer { codes in
                var bits: UInt64 = 0
                if !isCut {
                    kv_quantise(
                        values.baseAddress! + cells.lowerBound, cells.count, 1 / step, Int32(TransformCoder.codeLimit),
                        codes.baseAddress! + cells.lowerBound)
                    bits = groupBits(
                        option, basis: profile.bases[index], components, stepIndex: stepIndex, profile: profile,
                        codes: codes.baseAddress! + cells.lowerBound, rows: rows)
                }
                let sums = kv_error(
                    values.baseAddress! + cells.lowerBound, isCut ? nil : codes.baseAddress! + cells.lowerBound,
                    cells.count,
                    step)
                return (bits, sums.error, sums.energy)
            }
        }
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
    private var values: [[Float]]
    private var drifts: [[Int?]]

    /// - Parameter weighted: [rows][rowElements].
    init(profile: Profile, weighted: [Float], rows: Int, step: Float, kernels: KernelTable) {
        self.profile = profile
        self.rows = rows
        self.step = step
        values = profile.bases.map { _ in [] }
        drifts = profile.bases.map {
            [Int?](repeating: nil, count: ($0.rank + TransformCoder.group - 1) / TransformCoder.group)
        }
        let width = profile.geometry.rowElements
        inputs = weighted.withUnsafeBufferPointer { values in
            profile.bases.map {
                ForwardInput(
                    values: values.baseAddress! + $0.columns.lowerBound, rows: rows, stride: width,
                    columns: $0.columns.count, step: step, kernels: kernels)
            }
        }
        energy = inputs.reduce(0) { $0 + $1.energy } * Double(rows)
    }

    /// At least the leading `rank` components of a basis: [component][row].
    func leading(_ rank: Int, basis index: Int) -> [Float] {
        prepare(rank, basis: index)
        return values[index]
    }

    /// Computes as many components of a basis as are missing.
    func prepare(_ rank: Int, basis index: Int) {
        let have = values[index].count / rows
        guard rank > have else { return }
        // In whole tiles of digits, as those take no longer.
        let wanted = min(profile.bases[index].rank, have + (rank - have + 127) / 128 * 128)
        values[index] += [Float](unsafeUninitializedCapacity: (wanted - have) * rows) { buffer, count in
            profile.bases[index].forward(have..<wanted, inputs[index], step: step, target: buffer.baseAddress!)
            count = (wanted - have) * rows
        }
    }

    /// Classes that a group of 64 components is away from the profile's; measured when first asked for.
    func drift(basis index: Int, group: Int, measure: () -> Int) -> Int {
        if let known = drifts[index][group] { return known }
        let drift = measure()
        drifts[index][group] = drift
        return drift
    }
}
