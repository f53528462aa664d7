import CKernels
import KVTCModel

/// Finds the quantiser step for one page: the finest whose block fits a ratio, or the coarsest within a distortion bound,
/// or with both the finer of the two.
///
/// Size falls and distortion rises with the step, so exponential search (Bentley & Yao, 1976) from a good guess brackets the
/// answer and bisection ends it: O(log d) quantisations of the page for a guess d indices away.
struct RateControl {
    let profile: Profile
    let budget: Budget

    /// A step and how the bits are spent at it, with what that costs.
    struct OperatingPoint {
        var stepIndex: Int
        var allocation: TransformCoder.Allocation
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

    /// The point for these rows: gallops from the calibrated guess until `fine` and `coarse` bracket the answer, then bisects.
    func search(_ coefficients: Coefficients) -> OperatingPoint {
        let steps = steps
        let first = max(steps.lowerBound, min(predictedStep(), steps.upperBound))
        // What will be needed, in one go: the forward transform takes many components in less time than a few at a time.
        _ = coefficients.prepare(stepIndex: first - AllocationSearch.finer.max()! - 4)
        var fine = point(first, coefficients)
        var coarse = fine
        var stride = 8
        while isCoarse(fine), fine.stepIndex > steps.lowerBound {
            coarse = fine
            fine = point(max(fine.stepIndex - stride, steps.lowerBound), coefficients)
            stride *= 2
        }
        while !isCoarse(coarse), coarse.stepIndex < steps.upperBound {
            fine = coarse
            coarse = point(min(coarse.stepIndex + stride, steps.upperBound), coefficients)
            stride *= 2
        }
        while coarse.stepIndex - fine.stepIndex > 1 {
            let middle = point((coarse.stepIndex + fine.stepIndex) / 2, coefficients)
            if isCoarse(middle) { coarse = middle } else { fine = middle }
        }
        return AllocationSearch(profile: profile, budget: budget).refine(
            budget.choose(fine: fine, coarse: coarse) { $0.distortion }, coefficients)
    }

    private func isCoarse(_ point: OperatingPoint) -> Bool {
        budget.isCoarse(bytes: point.bytes, distortion: point.distortion)
    }

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
    func point(_ stepIndex: Int, _ coefficients: Coefficients) -> OperatingPoint {
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
        return makePoint(stepIndex, allocation, tally, coefficients)
    }

    func makePoint(
        _ stepIndex: Int, _ allocation: TransformCoder.Allocation, _ tally: Tally, _ coefficients: Coefficients
    ) -> OperatingPoint {
        OperatingPoint(
            stepIndex: stepIndex, allocation: allocation,
            bytes: TransformSection.fixedBytes(allocation, rows: coefficients.rows) + Int((tally.bits + 511) / 512),
            distortion: tally.error.total(of: coefficients.energy)
                / (profile.metadata.energy * Double(max(coefficients.rows, 1))))
    }

    /// The codes of a point, basis by basis: [component][row], zeros where a group is cut.
    func codes(_ point: OperatingPoint, _ coefficients: Coefficients) -> [[Int16]] {
        let rows = coefficients.rows
        var codes = point.allocation.ranks.map { [Int16](repeating: 0, count: $0 * rows) }
        forEachGroup(point.allocation) { index, first, option in
            guard option != TransformCoder.cutGroup else { return }
            codes[index].withUnsafeMutableBufferPointer {
                coefficients.quantise(
                    first..<min(first + TransformCoder.group, point.allocation.ranks[index]), basis: index,
                    step: RateControl.step(option, point.stepIndex), codes: $0.baseAddress! + first * rows)
            }
        }
        return codes
    }
}
