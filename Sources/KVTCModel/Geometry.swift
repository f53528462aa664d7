/// The tensors of a model's cache. A token's row is their elements one after another, keys of all layers first.
public struct Geometry: Hashable, Sendable {
    /// Largest number of elements in a row: 16 times that of a 70B model with grouped-query attention.
    public static let maximumRowElements = 1 << 21

    /// Sorted by role, then by layer: the canonical order of a row.
    public let tensors: [TensorGeometry]
    /// First element of each tensor in a row.
    public let offsets: [Int]
    /// Elements of one token's row.
    public let rowElements: Int
    /// One more than the highest layer index.
    public let layers: Int

    /// Checks limits and puts the tensors in canonical order.
    public init(tensors unsorted: [TensorGeometry]) throws(ModelError) {
        guard (1...8192).contains(unsorted.count) else {
            throw ModelError(field: "geometry.tensors", "\(unsorted.count) tensors; 1 to 8192 are allowed")
        }
        for tensor in unsorted { try Geometry.check(tensor) }
        tensors = unsorted.sorted { ($0.role.rawValue, $0.layer) < ($1.role.rawValue, $1.layer) }
        for (before, after) in zip(tensors, tensors.dropFirst())
        where before.role == after.role && before.layer == after.layer {
            throw ModelError(field: "geometry.tensors", "layer \(after.layer) has two \(after.role) tensors")
        }
        var offsets: [Int] = []
        var total = 0
        for tensor in tensors {
            offsets.append(total)
            total += tensor.width
        }
        guard total <= Geometry.maximumRowElements else {
            throw ModelError(
                field: "geometry.tensors", "\(total) elements a token; at most \(Geometry.maximumRowElements)")
        }
        self.offsets = offsets
        rowElements = total
        layers = tensors.reduce(0) { max($0, $1.layer + 1) }
    }

    /// Elements of a row that are keys, and those that are not.
    package var halves: [Range<Int>] {
        let end = tensors.firstIndex { $0.role != .key }.map { offsets[$0] } ?? rowElements
        return [0..<end, end..<rowElements]
    }

    /// Indices of the tensors whose layer is in `range`.
    package func tensorIndices(layers range: Range<Int>) -> [Int] {
        tensors.indices.filter { range.contains(tensors[$0].layer) }
    }

    private static func check(_ tensor: TensorGeometry) throws(ModelError) {
        let limits: [(String, Int, ClosedRange<Int>)] = [
            ("layer", tensor.layer, 0...4095), ("heads", tensor.heads, 1...1024),
            ("headDim", tensor.headDim, 1...8192),
        ]
        for (name, value, range) in limits where !range.contains(value) {
            throw ModelError(
                field: "geometry.\(name)", "\(value); \(range.lowerBound) to \(range.upperBound) are allowed")
        }
        guard let rotary = tensor.rotary else { return }
        guard rotary.dims > 0, rotary.dims % 2 == 0, rotary.offset >= 0,
            rotary.offset <= tensor.headDim, rotary.dims <= tensor.headDim - rotary.offset
        else {
            throw ModelError(
                field: "geometry.rotary",
                "elements \(rotary.offset) to \(rotary.offset + rotary.dims) of a head of \(tensor.headDim)")
        }
        guard rotary.inverseFrequencies.count == rotary.dims / 2,
            rotary.inverseFrequencies.allSatisfy({ $0.isFinite && abs($0) <= 4 })
        else {
            throw ModelError(
                field: "geometry.rotary.inverseFrequencies",
                "\(rotary.inverseFrequencies.count) values; \(rotary.dims / 2) finite ones within ±4 are needed")
        }
    }

    /// Every number of the geometry; equal only for equal geometries.
    package var numbers: [UInt32] {
        var words: [UInt32] = []
        for tensor in tensors {
            words += [tensor.layer, Int(tensor.role.rawValue), tensor.heads, tensor.headDim].map(UInt32.init)
            if let rotary = tensor.rotary {
                words += [UInt32(rotary.style.rawValue), UInt32(rotary.offset), UInt32(rotary.dims)]
                words += rotary.inverseFrequencies.map(\.bitPattern)
            } else {
                words.append(0)
            }
        }
        return words
    }
}
