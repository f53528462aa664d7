import CKernels

/// From cached rows to the domain in which errors are counted: rotation undone, centred, weighted.
struct RowTransform {
    let profile: Profile
    let kernels: KernelTable

    /// How much stronger than any held-out row a row must be to count as an outlier.
    static let outlierFactor = 2.0

    /// Rows, by index, whose keys or values lie far outside of what was calibrated on: sinks that are not at the start, and
    /// whatever else a model treats as one. Coding would spoil what the attention of all later tokens rests on.
    func outliers(_ weighted: [Float], rows: Int) -> [Int] {
        guard let peaks = profile.metadata.peaks else { return [] }
        let width = profile.geometry.rowElements
        return weighted.withUnsafeBufferPointer { values in
            (0..<rows).filter { row in
                zip(profile.geometry.halves, peaks).contains { half, peak in
                    let norm = kv_error(values.baseAddress! + row * width + half.lowerBound, nil, half.count, 0).energy
                    return norm > RowTransform.outlierFactor * peak
                }
            }
        }
    }

    /// Weighted, centred rows before rotation: [rows][rowElements].
    func weightedRows(_ page: [UInt8], element: ElementType, firstPosition: Int, rows: [Int]) -> [Float] {
        let width = profile.geometry.rowElements
        let rowBytes = width * element.bytes
        return [Float](unsafeUninitializedCapacity: rows.count * width) { buffer, count in
            for (index, row) in rows.enumerated() {
                let target = buffer.baseAddress! + index * width
                page.withUnsafeBytes { kernels.toFloat(element, $0.baseAddress! + row * rowBytes, target, width) }
                profile.rotation.apply(target, position: firstPosition + row, direction: -1)
                profile.mean.withUnsafeBufferPointer { mean in
                    profile.weight.withUnsafeBufferPointer { weight in
                        for column in 0..<width { target[column] = (target[column] - mean[column]) * weight[column] }
                    }
                }
            }
            count = rows.count * width
        }
    }
}
