import CKernels

/// From cached rows to the domain in which errors are counted: rotation undone, centred, weighted.
struct RowTransform {
    let profile: Profile
    let kernels: KernelTable

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
