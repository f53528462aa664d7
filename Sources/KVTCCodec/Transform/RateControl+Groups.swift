import CKernels

/// What groups of 64 components cost, and the tables that suit them.
extension RateControl {
    /// What the groups cost so far, in their order.
    struct Tally {
        private(set) var bits: UInt64 = 0
        private(set) var error = CodingError()

        mutating func add(_ group: GroupCost) {
            bits += group.bits
            error.add(error: group.error, energy: group.energy)
        }
    }

    func forEachGroup(
        _ allocation: TransformCoder.Allocation, _ body: (_ basis: Int, _ first: Int, _ option: UInt8) -> Void
    ) {
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
    func allocation(_ stepIndex: Int, _ coefficients: Coefficients) -> TransformCoder.Allocation {
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
                classOffset: coefficients.classOffset(basis: index, group: group) {
                    classOffset(basis: index, first: group * TransformCoder.group, stepIndex, coefficients)
                })
        }
    }

    /// Classes between the profile's scale of a group and what codes this page's coefficients in the fewest bits. It hardly
    /// depends on the step: measured at one, it serves the others.
    private func classOffset(basis index: Int, first: Int, _ stepIndex: Int, _ coefficients: Coefficients) -> Int {
        let components = first..<min(first + TransformCoder.group, profile.bases[index].rank)
        return withScratch(coefficients) { codes in
            // The codes are the same whichever tables code them.
            coefficients.quantise(components, basis: index, step: TransformCoder.step(stepIndex), codes: codes)
            return classOffset { offset in
                groupBits(
                    TransformCoder.option(octaves: 0, classOffset: offset), basis: profile.bases[index], components,
                    stepIndex: stepIndex, codes: codes, rows: coefficients.rows)
            }
        }
    }

    /// The offset that takes the fewest bits, which fall towards it from either side.
    private func classOffset(_ bits: (Int) -> UInt64) -> Int {
        var best = (offset: 0, bits: bits(0))
        for direction in [-1, 1] {
            var next = best.offset + direction
            while TransformCoder.classOffsetRange.contains(next) {
                let cost = bits(next)
                guard cost < best.bits else { break }
                best = (next, cost)
                next += direction
            }
        }
        return best.offset
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

    static func step(_ option: UInt8, _ stepIndex: Int) -> Float {
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
