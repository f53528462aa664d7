import CKernels
import KVTCModel

/// Undoes and redoes the rotary embedding of whole rows.
package struct Rotation: Sendable {
    /// Ascending.
    let stretches: [kv_rotation]
    private let frequencies: [[Float]]
    /// Floats of one position's table of angles.
    let angleCount: Int

    /// For rows of this geometry.
    package init(geometry: Geometry) {
        frequencies = RopeTables(of: geometry.tensors).tables
        var angles = [0]
        for table in frequencies { angles.append(angles.last! + 2 * table.count) }
        angleCount = angles.last!
        var stretches: [kv_rotation] = []
        for (tensor, offset) in zip(geometry.tensors, geometry.offsets) {
            guard let rotary = tensor.rotary, let table = frequencies.firstIndex(of: rotary.inverseFrequencies) else {
                continue
            }
            for head in 0..<tensor.heads {
                let split = rotary.style == .halfSplit
                stretches.append(
                    kv_rotation(
                        first: UInt32(offset + head * tensor.headDim + rotary.offset), pairs: UInt32(rotary.dims / 2),
                        step: split ? 1 : 2, partner: split ? UInt32(rotary.dims / 2) : 1, angle: UInt32(angles[table]))
                )
            }
        }
        self.stretches = stretches
    }

    /// cos and sin of a position's angles: ``angleCount`` floats.
    func angles(position: Int, into target: UnsafeMutablePointer<Float>) {
        var next = target
        for table in frequencies {
            table.withUnsafeBufferPointer { kv_rotation_table(UInt32(position), $0.baseAddress, $0.count, next) }
            next += 2 * table.count
        }
    }

    /// Rotates `row` to `position` (direction 1) or back from it (−1).
    package func apply(_ row: UnsafeMutablePointer<Float>, position: Int, direction: Int32) {
        guard !stretches.isEmpty else { return }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: angleCount) { buffer in
            angles(position: position, into: buffer.baseAddress!)
            KernelTable.best.pointer.pointee.rows.rotate(row, stretches, stretches.count, buffer.baseAddress, direction)
        }
    }
}
