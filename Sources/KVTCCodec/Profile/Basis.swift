import CKernels

/// A transform over the elements `columns` of a row: components of unit norm, kept as int8 digits with power-of-two scales
/// so that decoding sums integers and gives the same bits on every machine.
package final class Basis: @unchecked Sendable {
    // Justified: nothing changes after `init`; the packed digits lie in memory that can't be written.
    let columns: ColumnGroup
    /// Of the columns.
    let width: Int
    let rank: Int
    /// 64 · log2 of each component's standard deviation on held-out tokens.
    let levels: [Int]
    /// Digits that share an exponent: quads `firstQuad`… of the packed digits.
    struct Plane {
        var exponent: Int
        /// Second digits of components that have two: left out where the first is precise enough for the step.
        var isLow: Bool
        var firstQuad: Int
        /// Component of each digit, ascending.
        var components: [Int32]
        /// Row of each digit in the file.
        var rows: [Int]
        var quads: Int { (components.count + Basis.quad - 1) / Basis.quad }
    }
    static let quad = Int(KV_QUAD)
    let planes: [Plane]
    /// Quads of digits of all planes.
    let quads: Int
    /// `kv_packed_size` bytes.
    let packed: UnsafePointer<UInt8>
    var packedBytes: Int { kv_packed_size(width, quads) }

    /// Where the digits come from.
    enum Digits {
        /// Format 1: rows of int8, packed into memory of the basis's own.
        case rows(UnsafeRawBufferPointer)
        /// Format 2: as they are used. They stay where they are, in the owner's memory.
        case packed(UnsafeRawBufferPointer, owner: PrivateBytes)
    }
    /// Keeps `packed`.
    private let owner: PrivateBytes

    init(
        columns: ColumnGroup, rank: Int, levels: [Int16], digits: Digits, components: [Int32], exponents: [Int8]
    ) throws(CodecError) {
        let width = columns.width
        self.width = width
        guard rank > 0, levels.count == rank, components.count == exponents.count else {
            throw .corrupt("basis of \(rank) components")
        }
        guard components.allSatisfy({ (0..<Int32(rank)).contains($0) }), Set(components).count == rank,
            zip(levels, levels.dropFirst()).allSatisfy({ $0 >= $1 })
        else { throw .corrupt("basis digits or levels out of order") }
        self.columns = columns
        self.rank = rank
        self.levels = levels.map(Int.init)
        planes = Basis.planes(components: components, exponents: exponents)
        quads = planes.last.map { $0.firstQuad + $0.quads } ?? 0
        let size = kv_packed_size(width, quads)
        switch digits {
        case .rows(let rows):
            guard rows.count == components.count * width else { throw .corrupt("digits of \(rows.count) bytes") }
            owner = try PrivateBytes(count: size) { [planes] (memory) throws(CodecError) in
                Basis.pack(
                    rows.bindMemory(to: Int8.self).baseAddress!, width: width, planes: planes,
                    into: memory.bindMemory(to: UInt8.self).baseAddress!)
            }
            packed = owner.bytes.bindMemory(to: UInt8.self).baseAddress!
        case .packed(let bytes, let memory):
            guard bytes.count == size else { throw .corrupt("\(bytes.count) packed bytes; these digits take \(size)") }
            owner = memory
            packed = bytes.bindMemory(to: UInt8.self).baseAddress!
        }
    }

    /// Digits as they are used: [⌈width / 32⌉][quads][32][4] bytes, 128 more than the digits.
    private static func pack(
        _ rows: UnsafePointer<Int8>, width: Int, planes: [Plane], into packed: UnsafeMutablePointer<UInt8>
    ) {
        let quads = planes.last.map { $0.firstQuad + $0.quads } ?? 0
        packed.initialize(repeating: 128, count: kv_packed_size(width, quads))
        for plane in planes {
            for (position, row) in plane.rows.enumerated() {
                kv_pack_digit(rows + row * width, width, quads, quad * plane.firstQuad + position, packed)
            }
        }
    }

    /// Digits [digit][column] as format 2 stores them, and how many quads they make.
    package static func pack(
        digits: [Int8], width: Int, components: [Int32], exponents: [Int8]
    ) -> (bytes: [UInt8], quads: Int) {
        let planes = planes(components: components, exponents: exponents)
        let quads = planes.last.map { $0.firstQuad + $0.quads } ?? 0
        let bytes = [UInt8](unsafeUninitializedCapacity: kv_packed_size(width, quads)) { buffer, count in
            pack(digits, width: width, planes: planes, into: buffer.baseAddress!)
            count = buffer.count
        }
        return (bytes, quads)
    }

    private static func planes(components: [Int32], exponents: [Int8]) -> [Plane] {
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
                        exponent: Int(exponent), isLow: isLow,
                        firstQuad: planes.last.map { $0.firstQuad + $0.quads } ?? 0,
                        components: members.map { components[$0] }, rows: members))
            }
        }
        return planes
    }

    /// Components whose scale is not far below the step: those with σ ≥ 0.4 Δ (cutting the others costs nothing measurable).
    func rank(stepIndex: Int) -> Int {
        // Levels descend. log2(0.4) = −85/64.
        Basis.prefix(rank) { levels[$0] >= stepIndex - 85 }
    }

    /// Digits of a plane that count at this step: those of the leading `count` components, and of second digits those whose
    /// absence would add more than a fiftieth of the step's own error, Δ²/12. A prefix, as components and levels descend.
    func used(_ plane: Plane, count: Int, stepIndex: Int) -> Int {
        let leading = Basis.prefix(plane.components.count) { plane.components[$0] < count }
        guard plane.isLow else { return leading }
        // σ² · width · (2^(e + 8))² ≥ Δ² / 50 in 1/64 octaves; 64 · log2(50) = 361.
        let widthLevel = 64 * (Int.bitWidth - 1 - width.leadingZeroBitCount)
        let bound = 2 * stepIndex - 361 - widthLevel - 128 * (plane.exponent + 8)
        return Basis.prefix(leading) { 2 * levels[Int(plane.components[$0])] >= bound }
    }

    /// How many of `count` indices, from 0 on, satisfy a predicate that holds for a prefix of them.
    static func prefix(_ count: Int, while predicate: (Int) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if predicate(middle) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
