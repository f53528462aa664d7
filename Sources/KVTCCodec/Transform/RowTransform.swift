import CKernels
import KVTCModel

/// From cached rows to the domain in which errors are counted: rotation undone, centred, weighted.
struct RowTransform {
    let profile: Profile
    let kernels: KernelTable

    /// Rows, by index, whose keys or values lie far outside of what was calibrated on: sinks that are not at the start, and
    /// whatever else a model treats as one. Coding would spoil what the attention of all later tokens rests on.
    func outliers(_ weighted: UnsafePointer<Float>, rows: Int) -> [Int] {
        guard let peaks = profile.metadata.peaks else { return [] }
        let width = profile.geometry.rowElements
        return (0..<rows).filter { row in
            zip(profile.geometry.halves, peaks).contains { half, peak in
                let norm = kv_error(weighted + row * width + half.lowerBound, nil, half.count, 0).energy
                return norm > ProfileMetadata.outlierFactor * peak
            }
        }
    }

    /// Weighted, centred rows before rotation, where an error costs its squared norm: [rows][rowElements], to `target`.
    func weigh(
        _ page: UnsafeRawPointer, element: Element, firstPosition: Int, rows: [Int],
        into target: UnsafeMutablePointer<Float>
    ) {
        let width = profile.geometry.rowElements
        profile.mean.withUnsafeBufferPointer { mean in
            profile.weight.withUnsafeBufferPointer { weight in
                for (index, row) in rows.enumerated() {
                    let values = target + index * width
                    kernels.toFloat(element, page + row * width * element.bytes, values, width)
                    profile.rotation.apply(values, position: firstPosition + row, direction: -1)
                    for column in 0..<width { values[column] = (values[column] - mean[column]) * weight[column] }
                }
            }
        }
        profile.root?.apply(target, count: rows.count, stride: width, kernels: kernels)
    }
}
