/// Plain integer quantisation of the values as they are cached: what engines offer as q8_0 and q4_0.
///
/// Section: rows one after another; a row is its elements in groups of 32, each a little-endian f16 scale (absolute
/// maximum over 127 or 7) and 32 signed codes of 8 bits, or 4 bits with the first of a pair in the low half.
enum IntegerQuantiser {
    static let group = 32

    static func rowBytes(elements: Int, bits: Int) -> Int {
        (elements + group - 1) / group * (2 + group * bits / 8)
    }

    /// Quantises one row of finite floats; `output` grows by ``rowBytes(elements:bits:)``.
    static func encode(_ row: UnsafeBufferPointer<Float>, bits: Int, kernels: KernelTable, output: inout [UInt8]) {
        let top: Float = bits == 8 ? 127 : 7
        for start in stride(from: 0, to: row.count, by: group) {
            let values = row[start..<min(start + group, row.count)]
            var scale = values.reduce(0) { max($0, abs($1)) } / top
            var packed: [UInt8] = [0, 0]
            _ = kernels.fromFloat(.f16, &scale, &packed, 1)
            kernels.toFloat(.f16, packed, &scale, 1)
            let codes = (0..<group).map { index -> Int8 in
                guard scale > 0, start + index < values.endIndex else { return 0 }
                return Int8(max(-top, min(top, (values[start + index] / scale).rounded(.toNearestOrEven))))
            }
            output += packed
            if bits == 8 {
                output += codes.map(UInt8.init(bitPattern:))
            } else {
                for pair in stride(from: 0, to: group, by: 2) {
                    output.append(UInt8(bitPattern: codes[pair]) & 15 | UInt8(bitPattern: codes[pair + 1]) << 4)
                }
            }
        }
    }

    static func decode(
        _ bytes: UnsafeRawBufferPointer, bits: Int, kernels: KernelTable, into row: UnsafeMutableBufferPointer<Float>
    ) {
        let groupBytes = 2 + group * bits / 8
        for start in stride(from: 0, to: row.count, by: group) {
            let base = start / group * groupBytes
            var scale: Float = 0
            kernels.toFloat(.f16, bytes.baseAddress! + base, &scale, 1)
            for index in 0..<min(group, row.count - start) {
                let code: Int
                if bits == 8 {
                    code = Int(Int8(bitPattern: bytes[base + 2 + index]))
                } else {
                    let byte = Int8(bitPattern: bytes[base + 2 + index / 2])
                    code = Int(index % 2 == 0 ? (byte << 4) >> 4 : byte >> 4)
                }
                row[start + index] = Float(code) * scale
            }
        }
    }
}
