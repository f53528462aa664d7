import CKernels
import COpenBLAS
import Glibc
import KVTCCodec

/// Unit-norm components as int8 digits with power-of-two scales.
struct BasisDigits {
    /// [digit][column]
    private(set) var digits: [Int8] = []
    private(set) var components: [Int32] = []
    private(set) var exponents: [Int8] = []
    private static let tile = 128

    /// Components whose 8-bit rounding would matter at `step` take 16 bits, a high and a low digit; the others take 8.
    init(_ source: some ComponentSource, step: Double) {
        let width = source.width
        let tile = Matrix(rows: BasisDigits.tile, columns: width)
        var largest: [Float] = []
        BasisDigits.forEachTile(source.count) { part in
            source.fill(part, into: tile.values)
            for row in 0..<part.count {
                let at = tile.values + row * width
                largest.append(abs(at[Int(cblas_isamax(Int32(width), at, 1))]))
            }
        }
        let wide = BasisDigits.wideComponents(largest, variances: source.variances, width: width, step: step)
        let rows = source.count + wide.count
        components.reserveCapacity(rows)
        exponents.reserveCapacity(rows)
        digits = [Int8](unsafeUninitializedCapacity: rows * width) { buffer, count in
            var next = buffer.baseAddress!
            BasisDigits.forEachTile(source.count) { part in
                source.fill(part, into: tile.values)
                for (row, component) in part.enumerated() {
                    let isWide = wide.contains(component)
                    let exponent = BasisDigits.exponent(largest[component], top: isWide ? 32_512 : 127)
                    BasisDigits.round(
                        tile.values + row * width, width, exponent: exponent, into: next,
                        low: isWide ? next + width : nil)
                    next += isWide ? 2 * width : width
                    components += [Int32](repeating: Int32(component), count: isWide ? 2 : 1)
                    exponents += isWide ? [Int8(exponent + 8), Int8(exponent)] : [Int8(exponent)]
                }
            }
            count = rows * width
        }
    }

    private static func forEachTile(_ count: Int, _ body: (Range<Int>) -> Void) {
        for start in stride(from: 0, to: count, by: tile) { body(start..<min(start + tile, count)) }
    }

    private static func exponent(_ largest: Float, top: Double) -> Int {
        Int(ceil(log2(Double(max(largest, .leastNormalMagnitude)) / top)))
    }

    /// Values over 2^exponent as integers: 8-bit ones, or 16-bit ones in a high digit that counts 256 and a low one.
    private static func round(
        _ values: UnsafePointer<Float>, _ count: Int, exponent: Int, into high: UnsafeMutablePointer<Int8>,
        low: UnsafeMutablePointer<Int8>?
    ) {
        withUnsafeTemporaryAllocation(of: Int16.self, capacity: count) { codes in
            let integers = codes.baseAddress!
            kv_quantise(values, count, Float(exp2(-Double(exponent))), low == nil ? 127 : 32_512, integers)
            guard let low else {
                for column in 0..<count { high[column] = Int8(truncatingIfNeeded: integers[column]) }
                return
            }
            for column in 0..<count {
                let top = (integers[column] &+ 128) >> 8
                high[column] = Int8(truncatingIfNeeded: top)
                low[column] = Int8(truncatingIfNeeded: integers[column] &- top << 8)
            }
        }
    }

    /// The components whose 8-bit rounding would add more than a hundredth to the quantisation error, but at most 30 of 100.
    private static func wideComponents(
        _ largest: [Float], variances: [Float], width: Int, step: Double
    ) -> Set<Int> {
        let noise = zip(largest, variances).map { largest, variance -> Double in
            let unit = exp2(Double(exponent(largest, top: 127)))
            return Double(max(variance, 0)) * Double(width) * unit * unit / 12
        }
        var budget = 0.01 * Double(noise.count) * step * step / 12
        // A third of what a float basis takes, and a little for the rest of the file.
        let limit = noise.count * 30 / 100
        var wide = Set(noise.indices)
        for component in noise.indices.sorted(by: { noise[$0] < noise[$1] }) {
            budget -= noise[component]
            if budget < 0, wide.count <= limit { break }
            wide.remove(component)
        }
        return wide
    }

    /// The step at which Gaussian components of these variances take 1/`ratio` of 16 bits an element.
    static func step(variances: [Float], elements: Int, ratio: Double) -> Double {
        let bits = 16 * Double(elements) / ratio
        var (low, high) = (-40.0, 40.0)
        for _ in 0..<60 {
            let middle = (low + high) / 2
            let step = exp2(middle)
            let cost = variances.reduce(0.0) {
                $0 + 0.5 * log2(1 + 2 * Double.pi * M_E * Double(max($1, 0)) / (step * step))
            }
            if cost > bits { low = middle } else { high = middle }
        }
        return exp2(high)
    }

    /// target[component][row]: inner products with the columns of each of the rows, from the digits as they are stored.
    func project(_ rows: Matrix, columns: ColumnGroup, rank: Int, target: Matrix, step: (Double) throws -> Void) throws
    {
        let width = columns.width
        let tile = Matrix(rows: BasisDigits.tile, columns: width)
        let low = Matrix(rows: 1, columns: width)
        var digit = 0
        for start in stride(from: 0, to: rank, by: tile.rows) {
            let count = min(tile.rows, rank - start)
            digits.withUnsafeBufferPointer { digits in
                for index in 0..<count {
                    let at = tile.values + index * width
                    expand(digit, digits, width, into: at)
                    digit += 1
                    guard digit < components.count, components[digit] == Int32(start + index) else { continue }
                    expand(digit, digits, width, into: low.values)
                    cblas_saxpy(Int32(width), 1, low.values, 1, at, 1)
                    digit += 1
                }
            }
            var place = 0
            for range in columns.ranges {
                cblas_sgemm(
                    CblasRowMajor, CblasNoTrans, CblasTrans, Int32(count), Int32(rows.rows), Int32(range.count), 1,
                    tile.values + place, Int32(width), rows.values + range.lowerBound, Int32(rows.columns),
                    place == 0 ? 0 : 1, target.values + start * rows.rows, Int32(rows.rows))
                place += range.count
            }
            try step(Double(start + count) / Double(rank))
        }
    }

    private func expand(
        _ digit: Int, _ digits: UnsafeBufferPointer<Int8>, _ width: Int, into target: UnsafeMutablePointer<Float>
    ) {
        let scale = Float(exp2(Double(exponents[digit])))
        let at = digits.baseAddress! + digit * width
        for column in 0..<width { target[column] = scale * Float(at[column]) }
    }
}
