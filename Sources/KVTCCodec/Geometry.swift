import CXXHash
import Glibc

/// What a cached tensor holds.
public enum TensorRole: UInt8, Sendable, CaseIterable {
    case key = 0
    case value = 1
    /// A compressed joint cache, such as the one of multi-head latent attention.
    case latent = 2
}

/// The rotary position embedding that a key went through before it was cached.
public struct Rotary: Hashable, Sendable {
    /// Which elements of a head form a rotated pair.
    public enum Style: UInt8, Sendable {
        /// Elements 2i and 2i + 1.
        case interleaved = 1
        /// Elements i and i + dims / 2.
        case halfSplit = 2
    }

    /// Which elements are partners.
    public var style: Style
    /// First rotated element of each head.
    public var offset: Int
    /// Number of rotated elements of each head, even.
    public var dims: Int
    /// Radians a position for each pair, `dims / 2` of them.
    public var inverseFrequencies: [Float]

    /// Rotation with explicit frequencies (scaled or learnt ones included).
    public init(style: Style, offset: Int = 0, dims: Int, inverseFrequencies: [Float]) {
        self.style = style
        self.offset = offset
        self.dims = dims
        self.inverseFrequencies = inverseFrequencies
    }

    /// Rotation with the usual geometric frequencies base^(−2i/dims) (Su et al., arXiv 2104.09864).
    public init(style: Style, offset: Int = 0, dims: Int, base: Double) {
        self.init(
            style: style, offset: offset, dims: dims,
            inverseFrequencies: (0..<max(dims, 0) / 2).map { Float(pow(base, -2 * Double($0) / Double(dims))) })
    }
}

/// One cached tensor of one layer: `heads × headDim` elements a token.
public struct TensorGeometry: Hashable, Sendable {
    /// Index of the layer in the model.
    public var layer: Int
    /// What the tensor holds.
    public var role: TensorRole
    /// Key-value heads.
    public var heads: Int
    /// Elements of a head.
    public var headDim: Int
    /// Nil where positions are not encoded in the cached values.
    public var rotary: Rotary?

    /// Elements of one token.
    public var width: Int { heads * headDim }

    /// A tensor; limits are checked by ``Geometry/init(tensors:)``.
    public init(layer: Int, role: TensorRole, heads: Int, headDim: Int, rotary: Rotary? = nil) {
        self.layer = layer
        self.role = role
        self.heads = heads
        self.headDim = headDim
        self.rotary = rotary
    }
}

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
    /// XXH3-64 over every number above; equal geometries have equal hashes on every machine.
    public let hash: UInt64

    /// Checks limits and puts the tensors in canonical order.
    public init(tensors unsorted: [TensorGeometry]) throws(CodecError) {
        guard (1...8192).contains(unsorted.count) else {
            throw .invalid(field: "geometry.tensors", "\(unsorted.count) tensors; 1 to 8192 are allowed")
        }
        for tensor in unsorted { try Geometry.check(tensor) }
        tensors = unsorted.sorted { ($0.role.rawValue, $0.layer) < ($1.role.rawValue, $1.layer) }
        for (before, after) in zip(tensors, tensors.dropFirst())
        where before.role == after.role && before.layer == after.layer {
            throw .invalid(field: "geometry.tensors", "layer \(after.layer) has two \(after.role) tensors")
        }
        var offsets: [Int] = []
        var total = 0
        for tensor in tensors {
            offsets.append(total)
            total += tensor.width
        }
        guard total <= Geometry.maximumRowElements else {
            throw .invalid(
                field: "geometry.tensors", "\(total) elements a token; at most \(Geometry.maximumRowElements)")
        }
        self.offsets = offsets
        rowElements = total
        layers = tensors.reduce(0) { max($0, $1.layer + 1) }
        hash = Geometry.numbers(of: tensors).withUnsafeBytes { xxh3($0.baseAddress, $0.count, 0) }
    }

    /// Every number of the geometry; equal only for equal geometries.
    package var numbers: [UInt32] { Geometry.numbers(of: tensors) }

    /// Elements of a row that are keys, and those that are not.
    package var halves: [Range<Int>] {
        let end = tensors.firstIndex { $0.role != .key }.map { offsets[$0] } ?? rowElements
        return [0..<end, end..<rowElements]
    }

    /// Indices of the tensors whose layer is in `range`.
    func tensorIndices(layers range: Range<Int>) -> [Int] {
        tensors.indices.filter { range.contains(tensors[$0].layer) }
    }

    private static func check(_ tensor: TensorGeometry) throws(CodecError) {
        let limits: [(String, Int, ClosedRange<Int>)] = [
            ("layer", tensor.layer, 0...4095), ("heads", tensor.heads, 1...1024),
            ("headDim", tensor.headDim, 1...8192),
        ]
        for (name, value, range) in limits where !range.contains(value) {
            throw .invalid(
                field: "geometry.\(name)", "\(value); \(range.lowerBound) to \(range.upperBound) are allowed")
        }
        guard let rotary = tensor.rotary else { return }
        guard rotary.dims > 0, rotary.dims % 2 == 0, rotary.offset >= 0,
            rotary.offset <= tensor.headDim, rotary.dims <= tensor.headDim - rotary.offset
        else {
            throw .invalid(
                field: "geometry.rotary",
                "elements \(rotary.offset) to \(rotary.offset + rotary.dims) of a head of \(tensor.headDim)")
        }
        guard rotary.inverseFrequencies.count == rotary.dims / 2,
            rotary.inverseFrequencies.allSatisfy({ $0.isFinite && abs($0) <= 4 })
        else {
            throw .invalid(
                field: "geometry.rotary.inverseFrequencies",
                "\(rotary.inverseFrequencies.count) values; \(rotary.dims / 2) finite ones within ±4 are needed")
        }
    }

    private static func numbers(of tensors: [TensorGeometry]) -> [UInt32] {
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
