import CKernels

/// What one page's coded rows may cost.
struct Budget {
    var quality: Quality
    /// Bytes of the block beside the coded section and the protected rows.
    var overhead: Int
    /// Raw bytes of the coded rows.
    var rawBytes: Int

    /// Whether a coded section is on the far side of what is asked: small enough for a ratio, or beyond a distortion bound.
    func isCoarse(bytes: Int, distortion: Double) -> Bool {
        switch quality {
        case .ratio(let ratio): Double(bytes + overhead) * Double(ratio) <= Double(rawBytes)
        case .distortion(let bound): distortion > Double(bound)
        }
    }

    /// Whether a result keeps the promise of a distortion bound; a basis cut short can't keep every one.
    func allows(distortion: Double) -> Bool {
        if case .distortion(let bound) = quality { distortion <= Double(bound) } else { true }
    }

    /// Of two neighbours on either side of the boundary, the one that keeps the promise: the coarse one for a ratio.
    func choose<T>(fine: T, coarse: T) -> T { if case .ratio = quality { coarse } else { fine } }
}

/// Finds the quantiser step for one page: the finest whose block fits a ratio, or the coarsest within a distortion bound.
struct RateControl {
    let profile: Profile
    let budget: Budget

    /// A step with what it costs.
    struct Plan {
        var stepIndex: Int
        var allocation: TransformCoder.Allocation
        var codes: [[Int16]]
        /// Coded section, bytes.
        var bytes: Int
        var distortion: Double
    }

    /// Steps outside ±2^25 are not tried.
    private static let stepRange = -1600...1600

    /// The plan for these rows: gallops from the calibrated guess until `fine` and `coarse` bracket the answer, then bisects.
    func search(_ coefficients: Coefficients) -> Plan {
        var fine = plan(predictedStep(), coefficients)
        var coarse = fine
        var stride = 8
        while isCoarse(fine), fine.stepIndex > RateControl.stepRange.lowerBound {
            coarse = fine
            fine = plan(max(fine.stepIndex - stride, RateControl.stepRange.lowerBound), coefficients)
            stride *= 2
        }
        while !isCoarse(coarse), coarse.stepIndex < RateControl.stepRange.upperBound {
            fine = coarse
            coarse = plan(min(coarse.stepIndex + stride, RateControl.stepRange.upperBound), coefficients)
            stride *= 2
        }
        while coarse.stepIndex - fine.stepIndex > 1 {
            let middle = plan((coarse.stepIndex + fine.stepIndex) / 2, coefficients)
            if isCoarse(middle) { coarse = middle } else { fine = middle }
        }
        return budget.choose(fine: fine, coarse: coarse)
    }

    private func isCoarse(_ plan: Plan) -> Bool { budget.isCoarse(bytes: plan.bytes, distortion: plan.distortion) }

    private func predictedStep() -> Int {
        let table = profile.metadata.expectations
        let match =
            switch budget.quality {
            case .ratio(let ratio): table.first { $0.ratio >= Double(ratio) } ?? table.last
            case .distortion(let bound): table.last { $0.distortion <= Double(bound) } ?? table.first
            }
        return match?.stepIndex ?? 0
    }

    /// Quantises at one step and counts exactly what it costs.
    func plan(_ stepIndex: Int, _ coefficients: Coefficients) -> Plan {
        let rows = coefficients.rows
        let step = TransformCoder.step(stepIndex)
        var plan = Plan(
            stepIndex: stepIndex, allocation: .init(ranks: [], options: []), codes: [], bytes: 0, distortion: 0)
        var cost: UInt64 = 0
        var error = coefficients.energy
        for (index, basis) in profile.bases.enumerated() {
            let rank = basis.rank(stepIndex: stepIndex)
            let values = coefficients.leading(rank, basis: index)
            var codes = [Int16](repeating: 0, count: rank * rows)
            kv_quantise(values, codes.count, 1 / step, Int32(TransformCoder.codeLimit), &codes)
            for component in 0..<rank {
                let at = component * rows
                let entropyClass = EntropyTables.classOf(level: basis.levels[component], stepIndex: stepIndex)
                codes.withUnsafeBufferPointer {
                    cost += kv_cost(
                        profile.tables.table(entropyClass), $0.baseAddress! + at, rows,
                        UInt32(EntropyTables.shift(class: entropyClass)))
                }
                var (kept, residual): (Float, Float) = (0, 0)
                for cell in at..<at + rows {
                    let difference = values[cell] - Float(codes[cell]) * step
                    residual += difference * difference
                    kept += values[cell] * values[cell]
                }
                error += Double(residual) - Double(kept)
            }
            plan.allocation.ranks.append(rank)
            plan.allocation.options.append(
                [UInt8](repeating: 0, count: (rank + TransformCoder.group - 1) / TransformCoder.group))
            plan.codes.append(codes)
        }
        plan.bytes = 12 + plan.allocation.bytes + 64 + Int((cost + 511) / 512) + 2
        plan.distortion = max(0, error) / (profile.metadata.energy * Double(max(rows, 1)))
        return plan
    }
}

/// The transformed rows of one page, computed as far down the spectrum as rate control asks.
final class Coefficients {
    /// Coded rows.
    let rows: Int
    /// Squared norm of all weighted, centred rows.
    let energy: Double
    private let profile: Profile
    private let weighted: [Float]
    private var values: [[Float]]

    init(profile: Profile, weighted: [Float], rows: Int) {
        self.profile = profile
        self.weighted = weighted
        self.rows = rows
        values = profile.bases.map { _ in [] }
        let width = profile.geometry.rowElements
        energy = (0..<rows).reduce(0) { sum, row in
            sum + weighted[row * width..<(row + 1) * width].reduce(into: Double(0)) { $0 += Double($1) * Double($1) }
        }
    }

    /// At least the leading `rank` components of a basis: [component][row].
    func leading(_ rank: Int, basis index: Int) -> [Float] {
        let basis = profile.bases[index]
        let have = values[index].count / rows
        if rank > have {
            // A little ahead, so that the next finer steps of the search find theirs ready.
            let wanted = min(basis.rank, rank + rank / 16 + 32)
            let more = [Float](unsafeUninitializedCapacity: (wanted - have) * rows) { buffer, count in
                basis.forward(
                    have..<wanted, values: weighted, rowCount: rows, stride: profile.geometry.rowElements,
                    target: buffer.baseAddress!)
                count = (wanted - have) * rows
            }
            values[index] += more
        }
        return values[index]
    }
}
