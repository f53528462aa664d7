import COpenBLAS
import FoundationEssentials
import Glibc

/// Unit-norm components as int8 digits with power-of-two scales.
struct BasisDigits {
    var digits: [Int8] = []
    var components: [Int32] = []
    var exponents: [Int8] = []

    /// - Parameters:
    ///   - sigmas: standard deviation of each component.
    ///   - wide: components that take 16 bits, a high and a low digit; the others take 8.
    init(_ vectors: Matrix, wide: Set<Int>) {
        let width = vectors.columns
        for component in 0..<vectors.rows {
            let row = vectors.values + component * width
            let largest = (0..<width).reduce(Float(0)) { max($0, abs(row[$1])) }
            let isWide = wide.contains(component)
            let top: Float = isWide ? 32_512 : 127
            let exponent = Int(ceil(log2(Double(max(largest, .leastNormalMagnitude)) / Double(top))))
            let scale = Float(exp2(-Double(exponent)))
            var low: [Int8] = []
            for column in 0..<width {
                let value = Int(max(-top, min(top, (row[column] * scale).rounded())))
                if isWide {
                    let high = (value + 128) >> 8
                    digits.append(Int8(high))
                    low.append(Int8(value - high << 8))
                } else {
                    digits.append(Int8(value))
                }
            }
            components.append(Int32(component))
            exponents.append(Int8(exponent + (isWide ? 8 : 0)))
            if isWide {
                digits += low
                components.append(Int32(component))
                exponents.append(Int8(exponent))
            }
        }
    }

    /// The components whose 8-bit rounding would add more than a hundredth to the quantisation error at about 10×.
    static func wideComponents(_ vectors: Matrix, variances: [Float], step: Double) -> Set<Int> {
        let width = Double(vectors.columns)
        let noise = (0..<vectors.rows).map { component -> Double in
            let row = vectors.values + component * vectors.columns
            let largest = (0..<vectors.columns).reduce(Float(0)) { max($0, abs(row[$1])) }
            let unit = exp2(ceil(log2(Double(max(largest, .leastNormalMagnitude)) / 127)))
            return Double(max(variances[component], 0)) * width * unit * unit / 12
        }
        var budget = 0.01 * Double(vectors.rows) * step * step / 12
        var wide = Set(noise.indices)
        for component in noise.indices.sorted(by: { noise[$0] < noise[$1] }) {
            budget -= noise[component]
            if budget < 0 { break }
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
}

extension BasisDigits {
    /// target[component][row]: the components' inner products with the columns of each row, from the digits as they are stored.
    func project(_ rows: Matrix, columns: Range<Int>, rank: Int, target: Matrix) throws {
        let width = columns.count
        let tile = Matrix(rows: 256, columns: width)
        let firstDigit = Dictionary(grouping: components.indices) { Int(components[$0]) }
        for start in stride(from: 0, to: rank, by: tile.rows) {
            let count = min(tile.rows, rank - start)
            tile.values.update(repeating: 0, count: count * width)
            for component in start..<start + count {
                for digit in firstDigit[component] ?? [] {
                    let scale = Float(exp2(Double(exponents[digit])))
                    let row = tile.values + (component - start) * width
                    digits.withUnsafeBufferPointer {
                        let at = $0.baseAddress! + digit * width
                        for column in 0..<width { row[column] += scale * Float(at[column]) }
                    }
                }
            }
            cblas_sgemm(
                CblasRowMajor, CblasNoTrans, CblasTrans, Int32(count), Int32(rows.rows), Int32(width), 1, tile.values,
                Int32(width), rows.values + columns.lowerBound, Int32(rows.columns), 0,
                target.values + start * rows.rows, Int32(rows.rows))
        }
    }
}
