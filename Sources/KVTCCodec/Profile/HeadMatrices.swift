import CKernels
import KVTCModel

/// A symmetric matrix for the elements of each head: a block-diagonal matrix of a row's size.
///
/// What an error of a key costs depends on the queries that meet it, that of a value on what the output projection makes of
/// it, and both have directions in the head. A profile's root takes weighted rows to where an error costs its squared norm.
package final class HeadMatrices: @unchecked Sendable {
    // Justified: both arrays are written in `init` and only read afterwards.

    /// Heads up to this width have one matrix; wider ones, latents, have one for every ``piece`` elements.
    private static let widest = Int(KV_WIDEST)
    private static let piece = 128
    /// Of a row's elements, in order and without gaps.
    package let blocks: [Range<Int>]
    /// The matrices one after another, row by row.
    package let values: UnsafeBufferPointer<Float>
    /// Each block with its matrix.
    let entries: UnsafePointer<kv_block>

    /// - Parameter values: as many as ``count(for:)`` says.
    package init(geometry: Geometry, values: [Float]) {
        blocks = HeadMatrices.blocks(of: geometry)
        precondition(values.count == HeadMatrices.count(for: geometry), "\(values.count) values of head matrices")
        let copy = UnsafeMutableBufferPointer<Float>.allocate(capacity: values.count)
        _ = copy.initialize(from: values)
        self.values = UnsafeBufferPointer(copy)
        let entries = UnsafeMutablePointer<kv_block>.allocate(capacity: blocks.count)
        var next = 0
        for (index, block) in blocks.enumerated() {
            (entries + index).initialize(
                to: kv_block(
                    first: UInt32(block.lowerBound), width: UInt32(block.count), matrix: copy.baseAddress! + next))
            next += block.count * block.count
        }
        self.entries = UnsafePointer(entries)
    }

    /// Reads the lower triangles of a profile.
    /// - Parameter triangles: binary16, row by row, as many as ``triangleCount(for:)`` says.
    package convenience init(geometry: Geometry, triangles: [UInt16]) {
        var numbers = [Float](repeating: 0, count: triangles.count)
        KernelTable.scalar.toFloat(.f16, triangles, &numbers, triangles.count)
        var values: [Float] = []
        values.reserveCapacity(HeadMatrices.count(for: geometry))
        var first = 0
        for block in HeadMatrices.blocks(of: geometry) {
            for row in 0..<block.count {
                for column in 0..<block.count {
                    let (high, low) = (max(row, column), min(row, column))
                    values.append(numbers[first + high * (high + 1) / 2 + low])
                }
            }
            first += block.count * (block.count + 1) / 2
        }
        self.init(geometry: geometry, values: values)
    }

    /// The lower triangles as a profile keeps them, in binary16: the rounding adds less than a thousandth to the errors of
    /// quantisation at a ratio of 8.
    package var triangles: [UInt16] {
        var numbers: [Float] = []
        forEach { block, matrix in
            for row in 0..<block.count {
                numbers += UnsafeBufferPointer(start: matrix + row * block.count, count: row + 1)
            }
        }
        var result = [UInt16](repeating: 0, count: numbers.count)
        _ = KernelTable.scalar.fromFloat(.f16, numbers, &result, numbers.count)
        return result
    }

    deinit {
        values.deallocate()
        entries.deallocate()
    }

    /// The elements that each matrix is of.
    package static func blocks(of geometry: Geometry) -> [Range<Int>] {
        zip(geometry.tensors, geometry.offsets).flatMap { tensor, offset in
            let width = tensor.headDim <= widest ? tensor.headDim : piece
            return (0..<tensor.heads).flatMap { head in
                let first = offset + head * tensor.headDim
                return stride(from: first, to: first + tensor.headDim, by: width).map {
                    $0..<min($0 + width, first + tensor.headDim)
                }
            }
        }
    }

    /// Values of all matrices of a geometry.
    package static func count(for geometry: Geometry) -> Int {
        blocks(of: geometry).reduce(0) { $0 + $1.count * $1.count }
    }

    /// Values of all lower triangles of a geometry.
    package static func triangleCount(for geometry: Geometry) -> Int {
        blocks(of: geometry).reduce(0) { $0 + $1.count * ($1.count + 1) / 2 }
    }

    /// Calls `body` with each block and its matrix.
    package func forEach(_ body: (Range<Int>, UnsafePointer<Float>) throws -> Void) rethrows {
        for (index, block) in blocks.enumerated() { try body(block, entries[index].matrix) }
    }

    /// rows[row] = matrix · rows[row], for whole rows `stride` floats apart.
    package func apply(_ rows: UnsafeMutablePointer<Float>, count: Int, stride: Int, kernels: KernelTable) {
        for index in blocks.indices {
            let block = entries[index]
            kernels.pointer.pointee.rows.multiply(
                rows + Int(block.first), count, stride, block.matrix, Int(block.width))
        }
    }
}
