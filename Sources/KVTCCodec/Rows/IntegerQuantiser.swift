import KVTCModel

/// Plain integer quantisation of the values as they are cached: what engines offer as q8_0 and q4_0.
///
/// Section: rows one after another; a row is its elements in groups of 32, each a little-endian f16 scale (absolute
/// maximum over 127 or 7) and 32 signed codes of 8 bits, or 4 bits with the first of a pair in the low half.
struct IntegerQuantiser: RowCoder {
    private static let group = 32
    /// Of a code: 4 or 8.
    let bits: Int
    let kernels: KernelTable

    private var groupBytes: Int { 2 + IntegerQuantiser.group * bits / 8 }

    private func rowBytes(elements: Int) -> Int {
        (elements + IntegerQuantiser.group - 1) / IntegerQuantiser.group * groupBytes
    }

    func encode(_ task: inout CodingTask, memory: CoderMemory) -> [UInt8]? {
        let (rows, width) = (task.header.protected.complement, task.header.rowElements)
        let rowBytes = width * task.header.element.bytes
        var section: [UInt8] = []
        section.reserveCapacity(rows.count * self.rowBytes(elements: width))
        var (error, energy) = (0.0, 0.0)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * width) { scratch in
            let values = UnsafeMutableBufferPointer(rebasing: scratch[..<width])
            let restored = UnsafeMutableBufferPointer(rebasing: scratch[width...])
            for row in rows {
                kernels.toFloat(
                    task.header.element, task.page.baseAddress! + row * rowBytes, values.baseAddress!, width)
                let start = section.count
                encode(UnsafeBufferPointer(values), to: &section)
                section.withUnsafeBytes { decode(UnsafeRawBufferPointer(rebasing: $0[start...]), into: restored) }
                for index in 0..<width {
                    let difference = Double(values[index] - restored[index])
                    error += difference * difference
                    energy += Double(values[index]) * Double(values[index])
                }
            }
        }
        task.header.distortion = energy > 0 ? Float(error / energy) : 0
        return section
    }

    func decode(
        _ section: UnsafeRawBufferPointer, _ header: BlockHeader, into page: DecodedPage
    ) throws(CodecError) {
        let width = header.rowElements
        let coded = rowBytes(elements: width)
        guard section.count == coded * page.codedCount else {
            throw .corrupt("coded section of \(section.count) bytes")
        }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { values in
            page.replaceCodes(header) { index, row in
                decode(
                    UnsafeRawBufferPointer(rebasing: section[index * coded..<(index + 1) * coded]), into: values)
                _ = kernels.fromFloat(header.element, values.baseAddress!, row, width)
            }
        }
    }

    /// Quantises one row of finite floats; `output` grows by ``rowBytes(elements:)``.
    private func encode(_ row: UnsafeBufferPointer<Float>, to output: inout [UInt8]) {
        let top: Float = bits == 8 ? 127 : 7
        for start in stride(from: 0, to: row.count, by: IntegerQuantiser.group) {
            let values = row[start..<min(start + IntegerQuantiser.group, row.count)]
            var scale = values.reduce(0) { max($0, abs($1)) } / top
            var packed: [UInt8] = [0, 0]
            _ = kernels.fromFloat(.f16, &scale, &packed, 1)
            kernels.toFloat(.f16, packed, &scale, 1)
            let codes = (0..<IntegerQuantiser.group).map { index -> Int8 in
                guard scale > 0, start + index < values.endIndex else { return 0 }
                return Int8(max(-top, min(top, (values[start + index] / scale).rounded(.toNearestOrEven))))
            }
            output += packed
            if bits == 8 {
                output += codes.map(UInt8.init(bitPattern:))
            } else {
                for pair in stride(from: 0, to: IntegerQuantiser.group, by: 2) {
                    output.append(UInt8(bitPattern: codes[pair]) & 15 | UInt8(bitPattern: codes[pair + 1]) << 4)
                }
            }
        }
    }

    private func decode(_ bytes: UnsafeRawBufferPointer, into row: UnsafeMutableBufferPointer<Float>) {
        for start in stride(from: 0, to: row.count, by: IntegerQuantiser.group) {
            let base = start / IntegerQuantiser.group * groupBytes
            var scale: Float = 0
            kernels.toFloat(.f16, bytes.baseAddress! + base, &scale, 1)
            for index in 0..<min(IntegerQuantiser.group, row.count - start) {
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
