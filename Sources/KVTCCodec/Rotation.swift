import CKernels

/// Undoes and redoes the rotary embedding of whole rows.
package struct Rotation: Sendable {
    private let stretches: [kv_rotation]
    private let frequencies: [[Float]]

    /// For rows of this geometry.
    package init(geometry: Geometry) {
        frequencies = ProfileMetadata.ropeTables(of: geometry)
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
                        step: split ? 1 : 2, partner: split ? UInt32(rotary.dims / 2) : 1, table: UInt32(table)))
            }
        }
        self.stretches = stretches
    }

    /// Rotates `row` to `position` (direction 1) or back from it (−1).
    package func apply(_ row: UnsafeMutablePointer<Float>, position: Int, direction: Int32) {
        guard !stretches.isEmpty else { return }
        let total = frequencies.reduce(0) { $0 + 2 * $1.count }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: total) { buffer in
            var tables: [UnsafePointer<Float>?] = []
            var next = buffer.baseAddress!
            for table in frequencies {
                kv_rotation_table(UInt32(position), table, table.count, next)
                tables.append(UnsafePointer(next))
                next += 2 * table.count
            }
            kv_rotate(row, stretches, stretches.count, tables, direction)
        }
    }
}
