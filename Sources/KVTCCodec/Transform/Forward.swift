import CKernels

/// Weighted, centred rows as integers, ready to be multiplied with a basis's digits: the forward transform sums bytes as
/// the inverse one does, exactly, which takes a third of the time that floats would.
///
/// Each row has a unit, a sixteenth of the expected step: rounding to it adds a 256th of the quantiser's own error. Columns
/// go in blocks; in a block those with large values come first, as they take two digits.
final class ForwardInput {
    /// Columns of a block: few enough that no sum of a row's 16-bit values times bytes leaves 32 bits.
    static let blockQuads = 256
    /// Largest magnitude of a value: 1024 of them times 127 stay below 2^31.
    static let limit = 16_000
    /// The values' unit over the step.
    static let unit: Float = 1 / 16
    /// Second digits meet values in a unit 2^3 as coarse: they are 2^-8 of the first ones.
    static let halvings = 3

    struct Block {
        /// Of columns; whole tiles.
        var quads: Range<Int>
        /// Of ``terms``: for first digits and for second ones.
        var fine, coarse: Range<Int>
    }

    let rows: Int
    let kernels: KernelTable
    /// What 1 stands for in each row.
    let units: [Float]
    /// Mean squared norm of the rows in these columns.
    let energy: Double
    private(set) var blocks: [Block] = []
    /// Where each quad of columns comes in its block.
    private(set) var places: [UInt32]
    let terms: UnsafePointer<kv_term>
    // Owns what the terms point to.
    private let memory: CoderMemory.OfBasis

    /// - Parameters:
    ///   - values: `rows` rows, `stride` floats apart, of which these columns count.
    ///   - memory: used for nothing else as long as this lives.
    init(
        values: UnsafePointer<Float>, rows: Int, stride: Int, columns: ColumnGroup, step: Float, kernels: KernelTable,
        memory: CoderMemory.OfBasis, integers: inout Scratch<Int16>
    ) {
        self.memory = memory
        self.rows = rows
        self.kernels = kernels
        let quadCount = (columns.width + Int(KV_TILE) - 1) / Int(KV_TILE) * Int(KV_TILE) / Basis.quad
        let width = quadCount * Basis.quad
        let codes = integers.reserve(rows * width)
        var units: [Float] = []
        var energy = 0.0
        for row in 0..<rows {
            let at = values + row * stride
            let peak = columns.ranges.reduce(0) { max($0, kv_peak(at + $1.lowerBound, $1.count)) }
            // Rows far beyond the step get a unit that keeps their values in 16 bits.
            units.append(max(step * ForwardInput.unit, peak / Float(ForwardInput.limit)))
            var next = codes + row * width
            for range in columns.ranges {
                energy += kv_error(at + range.lowerBound, nil, range.count, 0).energy
                kv_quantise(at + range.lowerBound, range.count, 1 / units[row], Int32(ForwardInput.limit), next)
                next += range.count
            }
            next.update(repeating: 0, count: width - columns.width)
        }
        self.units = units
        self.energy = energy / Double(max(rows, 1))
        places = [UInt32](repeating: 0, count: quadCount)
        let blockCount = (quadCount + ForwardInput.blockQuads - 1) / ForwardInput.blockQuads
        let termLimit = 2 * blockCount * TermWriter.partsPerSum
        var writer = TermWriter(
            rows: rows, kernels: kernels, terms: memory.terms.reserve(termLimit),
            quads: memory.quads.reserve((6 * width + termLimit * kernels.line * Basis.quad) * rows),
            sums: memory.sums.reserve(termLimit * rows))
        terms = UnsafePointer(writer.terms)
        var peaks = [UInt16](repeating: 0, count: quadCount)
        kv_column_peaks(codes, rows, width, quadCount, &peaks)
        for start in Swift.stride(from: 0, to: quadCount, by: ForwardInput.blockQuads) {
            let range = start..<min(start + ForwardInput.blockQuads, quadCount)
            let order = range.map(UInt32.init).sorted { peaks[Int($0)] > peaks[Int($1)] }
            for (place, quad) in order.enumerated() { places[Int(quad)] = UInt32(place) }
            var both: [Range<Int>] = []
            for halvings in [0, ForwardInput.halvings] {
                let first = writer.count
                order.withUnsafeBufferPointer { order in
                    let order = order.baseAddress!
                    writer.append(
                        digits: range.count * Basis.quad, firstQuad: 0, scale: 1,
                        largest: { UInt16((Int(peaks[Int(order[$0 / Basis.quad])]) >> halvings) + min(halvings, 1)) },
                        pack: { range, digits in
                            kv_pack_rows(
                                codes, rows, width, order + range.lowerBound / Basis.quad, range.count / Basis.quad,
                                UInt32(halvings), digits)
                        })
                }
                both.append(first..<writer.count)
            }
            blocks.append(Block(quads: range, fine: both[0], coarse: both[1]))
        }
    }
}

extension Basis {
    /// target[component][row] for the components of `range`: their inner products with each row.
    func forward(_ range: Range<Int>, _ input: ForwardInput, step: Float, target: UnsafeMutablePointer<Float>) {
        let rows = input.rows
        target.update(repeating: 0, count: range.count * rows)
        let tile = Int(KV_TILE)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Basis.tilesAtOnce * rows * tile) { sums in
            withUnsafeTemporaryAllocation(
                of: UInt8.self, capacity: ForwardInput.blockQuads * Basis.quad * tile
            ) { turned in
                for plane in planes where !plane.isLow || matters(plane, energy: input.energy, step: step) {
                    let count = plane.components.count
                    let begin = Basis.prefix(count) { plane.components[$0] < range.lowerBound }
                    let end = Basis.prefix(count) { plane.components[$0] < range.upperBound }
                    let scale =
                        Float(sign: .plus, exponent: plane.exponent, significand: 1)
                        * (plane.isLow ? Float(1 << ForwardInput.halvings) : 1)
                    for start in stride(
                        from: begin / Basis.quad * Basis.quad, to: end, by: Basis.tilesAtOnce * tile)
                    {
                        let digits = start..<min(start + Basis.tilesAtOnce * tile, plane.quads * Basis.quad)
                        sum(plane, digits, input, turned.baseAddress!, sums.baseAddress!)
                        for digit in max(begin, start)..<min(end, digits.upperBound) {
                            let to = target + (Int(plane.components[digit]) - range.lowerBound) * rows
                            let from =
                                sums.baseAddress! + (digit - start) / tile * rows * tile + (digit - start) % tile
                            for row in 0..<rows { to[row] += from[row * tile] * (scale * input.units[row]) }
                        }
                    }
                }
            }
        }
    }

    /// Tiles of digits that meet a block of the rows while it is in the core's own cache.
    private static let tilesAtOnce = 4

    /// Sums of some tiles of digits over all columns: [tile][row][32].
    private func sum(
        _ plane: Plane, _ digits: Range<Int>, _ input: ForwardInput, _ turned: UnsafeMutablePointer<UInt8>,
        _ sums: UnsafeMutablePointer<Float>
    ) {
        let tile = Int(KV_TILE)
        let tiles = stride(from: digits.lowerBound, to: digits.upperBound, by: tile)
        sums.update(repeating: 0, count: Basis.tilesAtOnce * input.rows * tile)
        let table = input.kernels.pointer.pointee.transform
        // The quads of a block's columns that a tile of digits needs; they lie far apart, so they are asked for early.
        func source(_ block: ForwardInput.Block, _ firstDigit: Int) -> UnsafePointer<UInt8> {
            packed
                + (block.quads.lowerBound * Basis.quad * quads + (plane.firstQuad + firstDigit / Basis.quad) * tile)
                * Basis.quad
        }
        for (number, block) in input.blocks.enumerated() {
            let terms = plane.isLow ? block.coarse : block.fine
            for (index, start) in tiles.enumerated() {
                let isLast = start + tile >= digits.upperBound
                let next = isLast ? number + 1 : number
                var ahead = kv_ahead()
                if next < input.blocks.count {
                    ahead.at = source(input.blocks[next], isLast ? digits.lowerBound : start + tile)
                    ahead.stride = quads * Basis.quad * tile
                    ahead.lines = UInt32(input.blocks[next].quads.count * Basis.quad / tile * 16)
                }
                let count = (min(tile, digits.upperBound - start) + Basis.quad - 1) / Basis.quad
                input.places.withUnsafeBufferPointer {
                    table.turn(
                        packed + block.quads.lowerBound * Basis.quad * quads * Basis.quad, quads,
                        plane.firstQuad + start / Basis.quad, count, $0.baseAddress! + block.quads.lowerBound,
                        block.quads.count * Basis.quad / tile, turned)
                }
                for first in stride(from: 0, to: input.rows, by: Int(KV_SLAB)) {
                    let slabRows = UInt32(min(Int(KV_SLAB), input.rows - first))
                    withUnsafeMutablePointer(to: &ahead) { ahead in
                        var job = kv_inverse_job(
                            tile: turned, quads: block.quads.count, terms: input.terms + terms.lowerBound,
                            term_count: terms.count,
                            slab: UInt32(first / Int(KV_SLAB)), tokens: slabRows, first: 0, count: slabRows,
                            target: sums + (index * input.rows + first) * tile, stride: tile, ahead: ahead)
                        table.inverse(&job)
                    }
                }
            }
        }
    }

    /// Whether leaving a plane of second digits out would add more than a hundredth of the step's own error. What is left of
    /// a first digit is up to half its unit, and meets a row's energy in no particular direction.
    private func matters(_ plane: Plane, energy: Double, step: Float) -> Bool {
        let unit = Double(sign: .plus, exponent: plane.exponent + 8, significand: 1)
        return energy * unit * unit > Double(step * step) / 100
    }
}
