import CKernels

/// Dynamic programming over groups of 64 components: which keep the common step, which take twice the step, which are cut.
///
/// A common step spends bits as reverse water-filling would if coding were ideal; what entropy coding at low rates and the
/// page's own statistics leave on the table, this picks up: for every size of the section, the least error (or for a
/// bound on the error, the least size), counting bits as the entropy coder will.
///
/// It is the multiple-choice knapsack problem (Kellerer, Pferschy & Pisinger, Knapsack Problems, 2004, chapter 11) with sizes
/// rounded up to cells, so exact but for the rounding: O(groups · choices · cells) additions, O(groups · cells) floats.
struct AllocationSearch {
    /// What coding a group one way costs.
    private struct Choice {
        var option: UInt8
        var cells: Int
        var error: Float
        var cost: RateControl.GroupCost
    }

    /// How much finer than one step for all the common step of a mixed allocation may be.
    static let finer = [0, 12]
    /// Resolution of the size axis.
    private static let cells = 12_288

    let profile: Profile
    let budget: Budget

    /// Improves on a point with one step for all by trying finer steps with coarser or cut groups; the point itself where
    /// nothing is better.
    func refine(_ point: RateControl.OperatingPoint, _ coefficients: Coefficients) -> RateControl.OperatingPoint {
        guard point.allocation.ranks.contains(where: { $0 > 0 }) else { return point }
        // Within a ratio the error is to fall, within a bound on the error the size.
        let bound = budget.fits(bytes: point.bytes) ? nil : budget.quality.distortion.map(Double.init)
        var best = point
        for finer in AllocationSearch.finer {
            guard let next = allocate(point.stepIndex - finer, limit: point.bytes, bound: bound, coefficients) else {
                continue
            }
            let isBetter =
                if let bound { next.distortion <= bound && next.bytes < best.bytes } else {
                    next.bytes <= best.bytes && next.distortion < best.distortion
                }
            if isBetter { best = next }
        }
        return best
    }

    private func allocate(
        _ stepIndex: Int, limit: Int, bound: Double?, _ coefficients: Coefficients
    ) -> RateControl.OperatingPoint? {
        let control = RateControl(profile: profile, budget: budget)
        var allocation = control.allocation(stepIndex, coefficients)
        let ranks = allocation.ranks
        let groups = zip(ranks.indices, ranks).flatMap { basis, rank in
            stride(from: 0, to: rank, by: TransformCoder.group).map { (basis: basis, first: $0) }
        }
        let fixed = TransformSection.fixedBytes(allocation, rows: coefficients.rows)
        guard limit > fixed else { return nil }
        // 1/64 bit a cell.
        let unit = max(1, (limit - fixed) * 512 / AllocationSearch.cells)
        let size = (limit - fixed) * 512 / unit
        // Least error of the groups so far with this many cells: a row before the first group and one after each.
        let width = size + 1
        let least = coefficients.memory.least.reserve((groups.count + 1) * width)
        least.update(repeating: 0, count: width)
        (least + width).update(repeating: .infinity, count: groups.count * width)
        var choicesOf: [[Choice]] = []
        for (index, group) in groups.enumerated() {
            let common = allocation.options[group.basis][group.first / TransformCoder.group]
            let coarse = TransformCoder.option(octaves: 1, classOffset: TransformCoder.classOffset(common))
            let choices = control.withScratch(coefficients) { scratch in
                [common, coarse, TransformCoder.cutGroup].map { option in
                    let cost = control.groupCost(
                        option, basis: group.basis, first: group.first, rank: ranks[group.basis],
                        stepIndex: stepIndex, coefficients, codes: scratch)
                    return Choice(
                        option: option, cells: (Int(cost.bits) + unit - 1) / unit, error: Float(cost.error), cost: cost)
                }
            }
            choicesOf.append(choices)
            for choice in choices where choice.cells <= size {
                kv_relax(
                    least + index * width, width - choice.cells, choice.error,
                    least + (index + 1) * width + choice.cells)
            }
        }
        let last = least + groups.count * width
        let total = coefficients.energy - energy(ranks, coefficients)
        let scale = profile.metadata.energy * Double(max(coefficients.rows, 1))
        var cell = size
        if let bound {
            guard let smallest = (0...size).first(where: { (total + Double(last[$0])) / scale <= bound }) else {
                return nil
            }
            cell = smallest
        }
        guard last[cell].isFinite else { return nil }
        var chosen: [Choice] = []
        for (index, group) in groups.enumerated().reversed() {
            // The choice that made the minimum: the same addition again.
            let choice = choicesOf[index].first {
                $0.cells <= cell
                    && least[index * width + cell - $0.cells] + $0.error == least[(index + 1) * width + cell]
            }!
            allocation.options[group.basis][group.first / TransformCoder.group] = choice.option
            chosen.append(choice)
            cell -= choice.cells
        }
        var tally = RateControl.Tally()
        for choice in chosen.reversed() { tally.add(choice.cost) }
        return control.makePoint(stepIndex, allocation, tally, coefficients)
    }

    private func energy(_ ranks: [Int], _ coefficients: Coefficients) -> Double {
        zip(ranks.indices, ranks).reduce(0) { sum, entry in
            let values = coefficients.leading(entry.1, basis: entry.0)
            return sum + kv_error(values, nil, entry.1 * coefficients.rows, 0).energy
        }
    }
}
