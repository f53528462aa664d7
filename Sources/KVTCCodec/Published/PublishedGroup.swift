import CKernels
import Glibc

/// One group of components of one page in the `kvtc` mode: for each row a shift and a scale (f16), then the codes of all rows,
/// lowest bits first.
struct PublishedGroup {
    let values: [Float]
    let first: Int
    let count: Int
    let rows: Int

    static func bytes(bits: Int, count: Int, rows: Int) -> Int {
        rows * PublishedCoder.sideBytes + (rows * count * bits + 7) / 8
    }

    /// Shift and scale of a row, as stored.
    private func side(row: Int, bits: Int, kernels: KernelTable) -> (shift: Float, scale: Float, bytes: [UInt8]) {
        var (low, high) = (Float.infinity, -Float.infinity)
        for component in first..<first + count {
            let value = values[component * rows + row]
            (low, high) = (min(low, value), max(high, value))
        }
        var pair = [low, (high - low) / Float((1 << bits) - 1)]
        var bytes = [UInt8](repeating: 0, count: 4)
        _ = kernels.fromFloat(.f16, pair, &bytes, 2)
        kernels.toFloat(.f16, bytes, &pair, 2)
        return (pair[0], pair[1], bytes)
    }

    private func code(_ value: Float, _ shift: Float, _ scale: Float, bits: Int) -> Int {
        let code = ((value - shift) / scale).rounded()
        // Neither NaN nor what is too large for an integer may reach the conversion.
        guard scale > 0, code > 0 else { return 0 }
        return Int(min(code, Float((1 << bits) - 1)))
    }

    /// Squared error with this many bits.
    func error(bits: Int, kernels: KernelTable) -> Float {
        var error: Float = 0
        for row in 0..<rows {
            let (shift, scale, _) = side(row: row, bits: bits, kernels: kernels)
            for component in first..<first + count {
                let value = values[component * rows + row]
                let difference = value - (shift + scale * Float(code(value, shift, scale, bits: bits)))
                error += difference * difference
            }
        }
        return error
    }

    /// Squared norm: the error of a dropped group.
    var energy: Float { values[first * rows..<(first + count) * rows].reduce(0) { $0 + $1 * $1 } }

    /// Appends the group's bytes; returns the largest absolute value that they decode to.
    func append(bits: Int, kernels: KernelTable, to payload: inout [UInt8]) -> Float {
        var codes: [UInt8] = []
        codes.reserveCapacity(rows * count)
        var largest: Float = 0
        for row in 0..<rows {
            let (shift, scale, bytes) = side(row: row, bits: bits, kernels: kernels)
            payload += bytes
            largest = max(largest, abs(shift), abs(shift + scale * Float((1 << bits) - 1)))
            for component in first..<first + count {
                codes.append(UInt8(code(values[component * rows + row], shift, scale, bits: bits)))
            }
        }
        let perByte = 8 / bits
        for start in stride(from: 0, to: codes.count, by: perByte) {
            var byte: UInt8 = 0
            for (index, code) in codes[start..<min(start + perByte, codes.count)].enumerated() {
                byte |= code << UInt8(index * bits)
            }
            payload.append(byte)
        }
        return largest
    }

    /// Reads a group into integer codes [component][row] of the common step.
    static func read(
        _ bytes: ArraySlice<UInt8>, bits: Int, count: Int, rows: Int, inverseStep: Float, kernels: KernelTable,
        into codes: inout [Int16], at first: Int
    ) {
        let start = bytes.startIndex
        let body = start + rows * PublishedCoder.sideBytes
        let mask = UInt8(truncatingIfNeeded: (1 << bits) - 1)
        var pair: [Float] = [0, 0]
        for row in 0..<rows {
            bytes.withUnsafeBytes { kernels.toFloat(.f16, $0.baseAddress! + row * PublishedCoder.sideBytes, &pair, 2) }
            for index in 0..<count {
                let cell = (row * count + index) * bits
                let code = bytes[body + cell / 8] >> UInt8(cell % 8) & mask
                let value = (pair[0] + pair[1] * Float(code)) * inverseStep
                // NaN from a hostile scale becomes 0.
                codes[(first + index) * rows + row] =
                    value.isFinite ? Int16(max(-32_000, min(32_000, value.rounded()))) : 0
            }
        }
    }
}
