import Glibc

/// What a cached tensor holds.
public enum Role: UInt8, Sendable, CaseIterable {
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
    public var role: Role
    /// Key-value heads.
    public var heads: Int
    /// Elements of a head.
    public var headDim: Int
    /// Nil where positions are not encoded in the cached values.
    public var rotary: Rotary?

    /// Elements of one token.
    public var width: Int { heads * headDim }

    /// A tensor; limits are checked by ``Geometry/init(tensors:)``.
    public init(layer: Int, role: Role, heads: Int, headDim: Int, rotary: Rotary? = nil) {
        self.layer = layer
        self.role = role
        self.heads = heads
        self.headDim = headDim
        self.rotary = rotary
    }
}

/// The distinct tables of rotation frequencies of a list of tensors, in order of first use: formats keep each once.
package struct RopeTables {
    package private(set) var tables: [[Float]] = []
    /// Which table each tensor has; nil for those without rotation.
    package private(set) var indices: [Int?] = []

    package init(of tensors: [TensorGeometry]) {
        // By their bits: 0 and −0 are different tables.
        var known: [[UInt32]: Int] = [:]
        for tensor in tensors {
            guard let table = tensor.rotary?.inverseFrequencies else {
                indices.append(nil)
                continue
            }
            let bits = table.map(\.bitPattern)
            if known[bits] == nil { tables.append(table) }
            indices.append(known[bits, default: tables.count - 1])
            known[bits] = indices[indices.count - 1]
        }
    }
}
