import CKernels

/// Between cached rows and the domain in which errors are counted: rotation undone, centred, weighted.
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

    /// Puts rows back: weight and mean undone, rotated, in the block's element type. Only columns of `spans` are meaningful.
    func finish(
        _ values: UnsafeMutablePointer<Float>, header: BlockHeader, rows: [Int], page: inout [UInt8]
    ) {
        let width = profile.geometry.rowElements
        let rowBytes = width * header.element.bytes
        for (index, row) in rows.enumerated() {
            let target = values + index * width
            profile.mean.withUnsafeBufferPointer { mean in
                profile.inverseWeight.withUnsafeBufferPointer { inverse in
                    for column in 0..<width { target[column] = target[column] * inverse[column] + mean[column] }
                }
            }
            profile.rotation.apply(target, position: header.firstPosition + row, direction: 1)
            page.withUnsafeMutableBytes {
                _ = kernels.fromFloat(header.element, target, $0.baseAddress! + row * rowBytes, width)
            }
        }
    }

    /// The columns of the tensors of `layers`.
    func spans(layers: Range<Int>) -> [Range<Int>] {
        let geometry = profile.geometry
        return geometry.tensorIndices(layers: layers).map {
            geometry.offsets[$0]..<geometry.offsets[$0] + geometry.tensors[$0].width
        }
    }
}
