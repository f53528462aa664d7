import CKernels
import COpenBLAS

extension PageCodec {
    /// Keeps the forward transform on the calling thread. For programs that run many codecs at once: OpenBLAS would
    /// otherwise start as many threads as there are processors for each of them.
    public static func useCallingThreadOnly() { openblas_set_num_threads(1) }
}

/// A transform over the elements `columns` of a row: components of unit norm, kept as int8 digits with power-of-two scales
/// so that decoding sums integers and gives the same bits on every machine.
final class Basis: @unchecked Sendable {
    // Justified: the two buffers are written once in `init` and only read afterwards.
    let columns: Range<Int>
    let rank: Int
    /// 64 · log2 of each component's standard deviation on held-out tokens.
    let levels: [Int]
    /// Digits that share an exponent, as rows of the packed buffer: `first` is even.
    struct Plane {
        var exponent: Int
        /// Second digits of components that have two: left out where the first is precise enough for the step.
        var isLow: Bool
        var first: Int
        /// Component of each digit, ascending.
        var components: [Int]
        /// Row of each digit in the file.
        var rows: [Int]
        /// First row of the next plane; even.
        var end: Int { first + (components.count + 1) / 2 * 2 }
    }
    let planes: [Plane]
    /// Plane and index of the digits of each component.
    private let digitsOf: [[(plane: Int, row: Int)]]
    private let rows: UnsafeMutablePointer<Int8>
    private let packed: UnsafeMutablePointer<Int8>
    private let packedDigits: Int

    init(
        columns: Range<Int>, rank: Int, levels: [Int16], digits: UnsafeRawBufferPointer, components: [Int32],
        exponents: [Int8]
    ) throws(CodecError) {
        let width = columns.count
        guard rank > 0, levels.count == rank, components.count == exponents.count,
            digits.count == components.count * width
        else { throw .corrupt("basis of \(rank) components") }
        guard components.allSatisfy({ (0..<Int32(rank)).contains($0) }), Set(components).count == rank,
            zip(levels, levels.dropFirst()).allSatisfy({ $0 >= $1 })
        else { throw .corrupt("basis digits or levels out of order") }
        self.columns = columns
        self.rank = rank
        self.levels = levels.map(Int.init)
        var seen = Set<Int32>()
        let isSecond = components.map { !seen.insert($0).inserted }
        var planes: [Plane] = []
        for exponent in Set(exponents).sorted() {
            for isLow in [true, false] {
                let members = components.indices.filter { exponents[$0] == exponent && isSecond[$0] == isLow }
                    .sorted { components[$0] < components[$1] }
                guard !members.isEmpty else { continue }
                planes.append(
                    Plane(
                        exponent: Int(exponent), isLow: isLow, first: planes.last?.end ?? 0,
                        components: members.map { Int(components[$0]) }, rows: members))
            }
        }
        self.planes = planes
        var digitsOf = [[(plane: Int, row: Int)]](repeating: [], count: rank)
        for (index, plane) in planes.enumerated() {
            for (component, row) in zip(plane.components, plane.rows) { digitsOf[component].append((index, row)) }
        }
        self.digitsOf = digitsOf
        packedDigits = planes.last?.end ?? 0
        rows = .allocate(capacity: digits.count)
        UnsafeMutableRawBufferPointer(start: rows, count: digits.count).copyMemory(from: digits)
        let size = kv_packed_size(UInt32(width), UInt32(packedDigits))
        packed = .allocate(capacity: size)
        packed.initialize(repeating: 0, count: size)
        for plane in planes {
            for (index, row) in plane.rows.enumerated() {
                kv_pack_basis(
                    rows + row * width, UInt32(width), UInt32(plane.first + index), 1, UInt32(packedDigits), packed)
            }
        }
    }

    deinit {
        rows.deallocate()
        packed.deallocate()
    }

    /// Components whose scale is not far below the step: those with σ ≥ 0.4 Δ (cutting the others costs nothing measurable).
    func rank(stepIndex: Int) -> Int {
        // Levels descend: the first one below the bound ends the kept ones. log2(0.4) = −85/64.
        var (low, high) = (0, rank)
        while low < high {
            let middle = (low + high) / 2
            if levels[middle] >= stepIndex - 85 { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Digits of a plane that count at this step: those of the leading `count` components, and of second digits those whose
    /// absence would add more than a fiftieth of the step's own error, Δ²/12. A prefix, as components and levels descend.
    private func used(_ plane: Plane, count: Int, stepIndex: Int) -> Int {
        let leading = plane.components.firstIndex { $0 >= count } ?? plane.components.count
        guard plane.isLow else { return leading }
        // σ² · width · (2^(e + 8))² ≥ Δ² / 50 in 1/64 octaves; 64 · log2(50) = 361.
        let widthLevel = 64 * (Int.bitWidth - 1 - columns.count.leadingZeroBitCount)
        let bound = 2 * stepIndex - 361 - widthLevel - 128 * (plane.exponent + 8)
        return plane.components[..<leading].firstIndex { 2 * levels[$0] < bound } ?? leading
    }

    /// target[component][row] for the components of `range`: B · Xᵀ with X = `rowCount` weighted, centred rows of `stride`.
    func forward(
        _ range: Range<Int>, values: UnsafePointer<Float>, rowCount: Int, stride: Int,
        target: UnsafeMutablePointer<Float>
    ) {
        let width = columns.count
        let tile = 96
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * tile * width) { buffer in
            let (floats, low) = (buffer.baseAddress!, buffer.baseAddress! + tile * width)
            for start in Swift.stride(from: range.lowerBound, to: range.upperBound, by: tile) {
                let count = min(tile, range.upperBound - start)
                for index in 0..<count {
                    expand(component: start + index, into: floats + index * width, scratch: low)
                }
                cblas_sgemm(
                    CblasRowMajor, CblasNoTrans, CblasTrans, Int32(count), Int32(rowCount), Int32(width), 1, floats,
                    Int32(width), values + columns.lowerBound, Int32(stride), 0,
                    target + (start - range.lowerBound) * rowCount, Int32(rowCount))
            }
        }
    }

    private func expand(component: Int, into target: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>)
    {
        let width = columns.count
        for (index, digit) in digitsOf[component].enumerated() {
            var scale = Float(sign: .plus, exponent: planes[digit.plane].exponent, significand: 1)
            let at = rows + digit.row * width
            if index == 0 {
                kv_expand_basis(at, &scale, 1, UInt32(width), target)
            } else {
                kv_expand_basis(at, &scale, 1, UInt32(width), scratch)
                for column in 0..<width { target[column] += scratch[column] }
            }
        }
    }

    /// Adds step · Bᵀ · codes to the columns `spans` (of the whole row; a few neighbours may be filled too) of `rowCount`
    /// rows of `stride` floats.
    /// - Parameter codes: [components][rowCount], the leading `count` components.
    func inverse(
        codes: UnsafePointer<Int16>, count: Int, rowCount: Int, step: Float, stepIndex: Int,
        columns spans: [Range<Int>], kernels: KernelTable, target: UnsafeMutablePointer<Float>, stride: Int
    ) {
        let tiles = tiles(covering: spans)
        let view = kv_basis(packed: packed, columns: UInt32(columns.count), digits: UInt32(packedDigits))
        for plane in planes {
            // An odd digit is paired with a zero code.
            let used = used(plane, count: count, stepIndex: stepIndex)
            guard used > 0 else { continue }
            let padded = (used + 1) / 2 * 2
            withUnsafeTemporaryAllocation(of: Int16.self, capacity: padded * rowCount) { block in
                block.initialize(repeating: 0)
                for index in 0..<used {
                    let source = codes + plane.components[index] * rowCount
                    for row in 0..<rowCount { block[(index / 2 * rowCount + row) * 2 + index % 2] = source[row] }
                }
                for tile in tiles {
                    kernels.pointer.pointee.inverse(
                        view, UInt32(plane.first), UInt32(padded), block.baseAddress, UInt32(rowCount),
                        UInt32(tile.lowerBound), UInt32(tile.upperBound),
                        Float(sign: .plus, exponent: plane.exponent, significand: 1) * step,
                        target + columns.lowerBound, stride)
                }
            }
        }
    }

    /// The spans in this basis's own columns, widened to whole tiles and joined, so that no column is summed twice.
    private func tiles(covering spans: [Range<Int>]) -> [Range<Int>] {
        var tiles: [Range<Int>] = []
        for span in spans.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            let part = span.clamped(to: columns)
            guard !part.isEmpty else { continue }
            let begin = (part.lowerBound - columns.lowerBound) & ~31
            let end = min(columns.count, (part.upperBound - columns.lowerBound + 31) & ~31)
            if let last = tiles.last, last.upperBound >= begin {
                tiles[tiles.count - 1] = last.lowerBound..<max(last.upperBound, end)
            } else {
                tiles.append(begin..<end)
            }
        }
        return tiles
    }
}
