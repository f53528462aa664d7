import CKernels
import KVTCModel

/// From cached rows to the domain in which errors are counted: rotation undone, centred, weighted.
struct RowTransform {
    let profile: Profile
    let kernels: KernelTable

    /// Rows, by index, whose keys or values lie far outside of what was calibrated on: sinks that are not at the start, and
    /// whatever else a model treats as one. Coding would spoil what the attention of all later tokens rests on.
    private func outliers(_ weighted: UnsafePointer<Float>, rows: Int) -> [Int] {
        guard let peaks = profile.metadata.peaks else { return [] }
        let width = profile.geometry.rowElements
        return (0..<rows).filter { row in
            zip(profile.geometry.halves, peaks).contains { half, peak in
                let norm = kv_error(weighted + row * width + half.lowerBound, nil, half.count, 0).energy
                return norm > ProfileMetadata.outlierFactor * peak
            }
        }
    }

    /// Weighted rows, [row][rowElements], and which rows of the page they are.
    struct Weighted {
        let rows: [Int]
        let values: UnsafePointer<Float>
    }

    /// The rows that are not protected. Those whose norm passes `limit`, and outliers unless they are to be coded, are
    /// protected; nil where none is left.
    /// - Parameter memory: has the values, until it is used again.
    func weigh(_ task: inout CodingTask, limit: Double, memory: CoderMemory) -> Weighted? {
        let width = profile.geometry.rowElements
        while task.header.protected.count < task.header.tokens {
            let rows = task.header.protected.complement
            let weighted = memory.weighted.reserve(rows.count * width)
            weigh(
                task.page.baseAddress!, element: task.header.element, firstPosition: task.header.firstPosition,
                rows: rows, into: weighted)
            // Squares beyond what floats hold are infinite, which is beyond the limit as well.
            let immense = rows.indices.filter {
                !(kv_error(weighted + $0 * width, nil, width, 0).energy <= limit * limit)
            }
            let outliers = task.keepsOutliers ? outliers(weighted, rows: rows.count) : []
            guard !immense.isEmpty || !outliers.isEmpty else { return Weighted(rows: rows, values: weighted) }
            for index in immense + outliers { task.header.protected.insert(rows[index]) }
        }
        return nil
    }

    /// Weighted, centred rows before rotation, where an error costs its squared norm: [rows][rowElements], to `target`.
    private func weigh(
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
