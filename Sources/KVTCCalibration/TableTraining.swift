import CKernels
import FoundationEssentials
import Glibc
import KVTCCodec

/// Scales of the components and the 64 shared symbol tables, from rows that the basis has not seen.
struct TableTraining {
    /// 64 · log2 σ for each basis, descending.
    private(set) var levels: [[Int16]] = []
    private(set) var frequencies: [UInt16] = []
    private(set) var expectations: [ProfileMetadata.Expectation] = []
    /// Mean squared norm of a row.
    private(set) var energy = 0.0
    /// Share of it that the bases hold.
    private(set) var captured = 0.0
    /// Largest squared norm of a row's keys, and of the rest of it.
    private(set) var peaks: [Double] = []
    /// Rows used.
    let tokens: Int
    private let elements: Int

    /// - Parameters:
    ///   - rows: weighted, centred, [tokens][elements].
    ///   - halves: keys and the rest.
    init(parts: [BasisPart], rows: Matrix, halves: [Range<Int>], step: (Double) throws -> Void) throws {
        tokens = rows.rows
        elements = rows.columns
        peaks = halves.map { _ in 0 }
        for row in 0..<rows.rows {
            for (index, half) in halves.enumerated() {
                let norm = half.reduce(0.0) {
                    $0 + Double(rows.values[row * elements + $1]) * Double(rows.values[row * elements + $1])
                }
                energy += norm / Double(tokens)
                peaks[index] = max(peaks[index], norm)
            }
        }
        var projections: [Matrix] = []
        for part in parts {
            let projection = Matrix(rows: part.rank, columns: tokens)
            try part.digits.project(rows, columns: part.columns, rank: part.rank, target: projection) {
                try step(0.3 * (Double(projections.count) + $0) / Double(parts.count))
            }
            for component in 0..<part.rank {
                captured += kv_error(projection.values + component * tokens, nil, tokens, 0).energy / Double(tokens)
            }
            projections.append(projection)
            levels.append(TableTraining.levels(of: projection))
        }
        let top = levels.flatMap(\.self).max().map(Int.init) ?? 0
        captured /= energy
        // Steps half a class apart, from so coarse that nothing is kept to so fine that all 64 classes occur.
        let grid = Array(stride(from: top, through: top - 64 * 14, by: -8))
        var counts = [UInt64](repeating: 0, count: EntropyTables.classes * EntropyTables.symbols)
        try forEachComponent(projections, grid: grid, progress: { try step(0.3 + 0.35 * $0) }) {
            _, entropyClass, codes in
            counts.withUnsafeMutableBufferPointer {
                kv_histogram(
                    codes.baseAddress, codes.count, UInt32(EntropyTables.shift(class: entropyClass)),
                    $0.baseAddress! + entropyClass * EntropyTables.symbols)
            }
        }
        for index in 0..<EntropyTables.classes {
            let prior = TableTraining.prior(class: index)
            let own = counts[index * EntropyTables.symbols..<(index + 1) * EntropyTables.symbols]
            frequencies += EntropyTables.normalise(zip(own, prior).map { $0 * 16 + $1 })
        }
        try expect(projections, grid: grid) { try step(0.65 + 0.35 * $0) }
    }

    /// Ratio and distortion at each step of the grid that may be wanted.
    private mutating func expect(_ projections: [Matrix], grid: [Int], progress: (Double) throws -> Void) throws {
        var tables = [kv_table](repeating: kv_table(), count: EntropyTables.classes)
        for index in tables.indices {
            _ = frequencies.withUnsafeBufferPointer {
                kv_table_make($0.baseAddress! + index * EntropyTables.symbols, &tables[index])
            }
        }
        var bits = [Double](repeating: 0, count: grid.count)
        var errors = [CodingError](repeating: CodingError(), count: grid.count)
        var ranks = [Int](repeating: 0, count: grid.count)
        let values = projections
        try forEachComponent(projections, grid: grid, progress: progress) { place, entropyClass, codes in
            let shift = UInt32(EntropyTables.shift(class: entropyClass))
            let cost: UInt64 = kv_cost(&tables[entropyClass], codes.baseAddress, codes.count, shift)
            bits[place.grid] += Double(cost) / 64
            let step = Float(exp2(Double(grid[place.grid]) / 64))
            let row = values[place.basis].values + place.component * codes.count
            let sums = kv_error(row, codes.baseAddress, codes.count, step)
            errors[place.grid].add(error: sums.error, energy: sums.energy)
            ranks[place.grid] += 1
        }
        let finest = ProfileMetadata.finestStep(peaks: peaks)
        for (index, stepIndex) in grid.enumerated() where ranks[index] > 0 && stepIndex >= finest {
            let page = bits[index] / 8 / Double(tokens) * 64 + Double(BlockHeader.size + 80 + ranks[index] / 64)
            let ratio = Double(64 * elements * 2) / page
            guard (3...500).contains(ratio) else { continue }
            let total = energy * Double(tokens)
            expectations.append(
                .init(
                    stepIndex: stepIndex, ratio: ratio, distortion: errors[index].total(of: total) / total,
                    rank: ranks[index]))
        }
        expectations.sort { $0.ratio < $1.ratio }
    }

    private struct Place {
        var grid, basis, component: Int
    }

    /// Quantises every component that is kept at each step of the grid.
    private func forEachComponent(
        _ projections: [Matrix], grid: [Int], progress: (Double) throws -> Void,
        _ body: (Place, Int, UnsafeBufferPointer<Int16>) -> Void
    ) throws {
        var codes = [Int16](repeating: 0, count: tokens)
        for (place, stepIndex) in grid.enumerated() {
            let step = Float(exp2(Double(stepIndex) / 64))
            for (index, projection) in projections.enumerated() {
                for component in 0..<projection.rows {
                    let level = Int(levels[index][component])
                    guard level >= stepIndex - 85 else { break }
                    kv_quantise(projection.values + component * tokens, tokens, 1 / step, 16_383, &codes)
                    codes.withUnsafeBufferPointer {
                        body(
                            Place(grid: place, basis: index, component: component),
                            EntropyTables.classOf(level: level, stepIndex: stepIndex), $0)
                    }
                }
            }
            try progress(Double(place + 1) / Double(grid.count))
        }
    }

    /// 64 · log2 of the standard deviation about zero, made to descend.
    private static func levels(of projection: Matrix) -> [Int16] {
        var previous = Int16.max
        return (0..<projection.rows).map { component in
            let row = projection.values + component * projection.columns
            var sum = 0.0
            for index in 0..<projection.columns { sum += Double(row[index]) * Double(row[index]) }
            let sigma = max((sum / Double(projection.columns)).squareRoot(), 1e-9)
            previous = min(previous, Int16(max(-4000, min(4000, (64 * log2(sigma)).rounded()))))
            return previous
        }
    }

    /// Sixteen samples' worth of a Laplace distribution of the class's scale, so that symbols not seen cost what they should.
    private static func prior(class index: Int) -> [UInt64] {
        let sigma = exp2(Double(index) / 4 - 4 + 0.125 - Double(EntropyTables.shift(class: index)))
        let scale = sigma / 2.0.squareRoot()
        let plain = EntropyTables.shift(class: index) == 0
        func mass(_ x: Double) -> Double { x < 0 ? 0.5 * exp(x / scale) : 1 - 0.5 * exp(-x / scale) }
        var weights = (0..<31).map { symbol -> Double in
            let low = Double(symbol - 15) - (plain ? 0.5 : 0)
            return mass(low + 1) - mass(low)
        }
        weights.append(max(0, 1 - weights.reduce(0, +)))
        return weights.map { UInt64($0 * 4096) }
    }
}
