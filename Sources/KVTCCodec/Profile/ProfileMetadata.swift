import KVTCModel

/// One of several processes that each hold some heads (tensor parallelism) or layers (pipeline parallelism) of a model,
/// with a geometry and a profile of its own.
public struct ModelRank: Hashable, Sendable, Codable, CustomStringConvertible {
    /// Which one, from 0.
    public let index: Int
    /// How many there are.
    public let world: Int

    /// Nil unless 0 ≤ index < world ≤ 4096.
    public init?(index: Int, world: Int) {
        guard (1...4096).contains(world), (0..<world).contains(index) else { return nil }
        self.index = index
        self.world = world
    }

    /// For people.
    public var description: String { "rank \(index) of \(world)" }
}

/// The JSON under the key "kvtc" of a profile's safetensors metadata.
public struct ProfileMetadata: Hashable, Sendable, Codable {
    /// One tensor of the geometry; `rope` indexes the tensors "rope.N".
    public struct Tensor: Hashable, Sendable, Codable {
        var layer, role, heads, headDim: Int
        var rope: Int?
        var ropeStyle, ropeOffset: Int?
    }

    /// One basis over some of a row's tensors.
    public struct Basis: Hashable, Sendable, Codable {
        /// Its elements in its order: first one and end of each range. The JSON has `begin` and `end` for a single one.
        public var ranges: [Range<Int>]
        /// Components, strongest first.
        public var rank: Int
        /// Rows of int8 digits; components that need 16 bits have two.
        public var digits: Int

        private enum Key: CodingKey { case begin, end, ranges, rank, digits }

        /// A basis of `digits` rows of int8.
        package init(ranges: [Range<Int>], rank: Int, digits: Int) {
            self.ranges = ranges
            self.rank = rank
            self.digits = digits
        }

        /// Throws where a range is none, too.
        public init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: Key.self)
            func range(_ bounds: [Int]) throws -> Range<Int> {
                guard bounds.count == 2, bounds[0] >= 0, bounds[0] < bounds[1] else {
                    throw DecodingError.dataCorruptedError(
                        forKey: .ranges, in: values, debugDescription: "a basis over elements \(bounds)")
                }
                return bounds[0]..<bounds[1]
            }
            let listed = try values.decodeIfPresent([[Int]].self, forKey: .ranges)
            ranges = try (listed ?? [[values.decode(Int.self, forKey: .begin), values.decode(Int.self, forKey: .end)]])
                .map(range)
            rank = try values.decode(Int.self, forKey: .rank)
            digits = try values.decode(Int.self, forKey: .digits)
        }

        /// As profiles and `kvtcctl profile show --json` have it.
        public func encode(to encoder: any Encoder) throws {
            var values = encoder.container(keyedBy: Key.self)
            if ranges.count == 1 {
                try values.encode(ranges[0].lowerBound, forKey: .begin)
                try values.encode(ranges[0].upperBound, forKey: .end)
            } else {
                try values.encode(ranges.map { [$0.lowerBound, $0.upperBound] }, forKey: .ranges)
            }
            try values.encode(rank, forKey: .rank)
            try values.encode(digits, forKey: .digits)
        }
    }

    /// One line of the table of what to expect, measured on held-out tokens.
    public struct Expectation: Hashable, Sendable, Codable {
        /// Index of the quantiser step: step = 2^(index / 64).
        public var stepIndex: Int
        /// Raw bytes (16-bit elements) over coded bytes of a 64-token page.
        public var ratio: Double
        /// Squared weighted error over expected energy.
        public var distortion: Double
        /// Components that are not cut.
        public var rank: Int

        /// One measured line.
        package init(stepIndex: Int, ratio: Double, distortion: Double, rank: Int) {
            self.stepIndex = stepIndex
            self.ratio = ratio
            self.distortion = distortion
            self.rank = rank
        }
    }

    /// Version of this layout: 4 has bases of several ranges, with roots or without; of the others 3 has roots, 2 none, 1 unpacked
    /// digits.
    public var format: Int
    /// Name of the model, for people.
    public var model: String
    /// Digest of the weights whose cache it was calibrated on, in hexadecimal; nil in profiles that do not say.
    public var weights: String?
    /// The rank of the model that the tensors belong to; absent for a whole model.
    public var rank: ModelRank?
    /// "gradients" or "sensitivity" (measured), "variance" (fallback) or "none" (the published method).
    public var weighting: String
    /// Canonical order.
    public var tensors: [Tensor]
    /// One joint basis, or one for keys and one for values.
    public var bases: [Basis]
    /// Tokens that the basis was made from, and those held out for scales and tables.
    public var calibrationTokens, heldOutTokens: Int
    /// Mean squared norm of a weighted, centred row of held-out tokens, multiplied by the root.
    public var energy: Double
    /// Share of that energy in the span of the basis; absent in older files.
    public var captured: Double?
    /// Largest squared norm of the keys, and of the rest, of such a row; nil in profiles that do not say.
    public var peaks: [Double]?
    /// Ascending by ratio.
    public var expectations: [Expectation]

    /// Puts the pieces of a profile's description together.
    public init(
        model: String, weights: String? = nil, rank: ModelRank? = nil, weighting: String, geometry: Geometry,
        bases: [Basis],
        calibrationTokens: Int, heldOutTokens: Int, energy: Double, captured: Double? = nil, peaks: [Double]? = nil,
        expectations: [Expectation], hasRoots: Bool = false
    ) {
        format = bases.contains { $0.ranges.count > 1 } ? 4 : hasRoots ? 3 : 2
        self.model = model
        self.weights = weights
        self.rank = rank
        self.weighting = weighting
        self.bases = bases
        self.calibrationTokens = calibrationTokens
        self.heldOutTokens = heldOutTokens
        self.energy = energy
        self.captured = captured
        self.peaks = peaks
        self.expectations = expectations
        let ropes = RopeTables(of: geometry.tensors)
        tensors = zip(geometry.tensors, ropes.indices).map { tensor, rope in
            Tensor(
                layer: tensor.layer, role: Int(tensor.role.rawValue), heads: tensor.heads, headDim: tensor.headDim,
                rope: rope, ropeStyle: tensor.rotary.map { Int($0.style.rawValue) }, ropeOffset: tensor.rotary?.offset)
        }
    }

    /// The columns of each basis: whole tensors, each in one.
    func columns(of geometry: Geometry) throws(CodecError) -> [ColumnGroup] {
        let width = geometry.rowElements
        let ranges = bases.flatMap(\.ranges).sorted { $0.lowerBound < $1.lowerBound }
        guard (1...max(2, geometry.layers)).contains(bases.count), ranges.first?.lowerBound == 0,
            ranges.last?.upperBound == width,
            zip(ranges, ranges.dropFirst()).allSatisfy({ $0.upperBound == $1.lowerBound })
        else { throw .corrupt("profile bases do not cover a row of \(width) elements, each once") }
        let starts = Set(geometry.offsets)
        guard ranges.allSatisfy({ starts.contains($0.lowerBound) }) else {
            throw .corrupt("a basis begins inside a tensor")
        }
        return bases.map { ColumnGroup($0.ranges) }
    }

    func geometry(ropeTables: [[Float]]) throws(CodecError) -> Geometry {
        var result: [TensorGeometry] = []
        for tensor in tensors {
            guard let role = UInt8(exactly: tensor.role).flatMap(Role.init(rawValue:)) else {
                throw .corrupt("profile tensor with role \(tensor.role)")
            }
            var rotary: Rotary?
            if let index = tensor.rope {
                guard ropeTables.indices.contains(index) else {
                    throw .corrupt("profile tensor with rope table \(index)")
                }
                let number = tensor.ropeStyle ?? 0
                guard let style = UInt8(exactly: number).flatMap(Rotary.Style.init(rawValue:)) else {
                    throw .corrupt("profile tensor with rope style \(number)")
                }
                rotary = Rotary(
                    style: style, offset: tensor.ropeOffset ?? 0, dims: 2 * ropeTables[index].count,
                    inverseFrequencies: ropeTables[index])
            }
            result.append(
                TensorGeometry(
                    layer: tensor.layer, role: role, heads: tensor.heads, headDim: tensor.headDim, rotary: rotary))
        }
        do throws(ModelError) { return try Geometry(tensors: result) } catch { throw CodecError(error) }
    }
}
