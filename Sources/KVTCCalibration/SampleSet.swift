import FoundationEssentials
import KVTCCodec

/// KV samples in safetensors files: tensors "k.<layer>" and "v.<layer>" [tokens, heads, headDim] as the engine caches them,
/// "positions" I32 [tokens]; metadata: format "kvtc-samples-1", model, rope_style (none, interleaved, half_split),
/// rope_base, rope_dims. Files are mapped, never read whole.
public final class SampleSet {
    private struct Shard {
        var data: Data
        var positions: [Int32]
        /// Element type and byte offset of each tensor, canonical order.
        var tensors: [(element: ElementType, offset: Int)]
    }

    /// The tensors, the same in every file.
    public let geometry: Geometry
    /// The model named in the files.
    public let model: String
    /// Tokens in all files.
    public let tokens: Int
    private let shards: [Shard]
    private let rotation: Rotation

    /// Opens and checks every file.
    public init(paths: [String]) throws {
        guard !paths.isEmpty else { throw CalibrationError("no sample files given") }
        var shards: [Shard] = []
        var geometry: Geometry?
        var model = ""
        for path in paths {
            let data: Data
            do { data = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped) } catch {
                throw CalibrationError("\(path) can't be read; is it there and readable?")
            }
            do {
                let file = try data.withUnsafeBytes { bytes in try Safetensors(bytes) }
                guard file.metadata["format"] == "kvtc-samples-1" else {
                    throw CalibrationError("its metadata lacks format \"kvtc-samples-1\"; capture with kvtc.capture")
                }
                let own = try SampleSet.geometry(of: file)
                guard geometry == nil || geometry == own else {
                    throw CalibrationError("its tensors differ from those of \(paths[0])")
                }
                geometry = own
                model = file.metadata["model"] ?? model
                shards.append(try SampleSet.shard(data, file, own))
            } catch {
                throw CalibrationError("\(path): \(error)")
            }
        }
        self.shards = shards
        self.geometry = geometry!
        self.model = model
        rotation = Rotation(geometry: geometry!)
        tokens = shards.reduce(0) { $0 + $1.positions.count }
        guard tokens > 0 else { throw CalibrationError("the sample files hold no tokens") }
    }

    /// Index of the first token of each context: where positions do not go on from the token before.
    public var contexts: [Range<Int>] {
        var starts: [Int] = []
        var (index, previous) = (0, Int32.min)
        for shard in shards {
            for (row, position) in shard.positions.enumerated() {
                if row == 0 || position != previous + 1 { starts.append(index) }
                previous = position
                index += 1
            }
        }
        return zip(starts, starts.dropFirst() + [tokens]).map { $0..<$1 }
    }

    /// Rows of the tokens `range` with rotation undone: [tokens][rowElements].
    func rows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        let width = geometry.rowElements
        var start = 0
        for shard in shards {
            let count = shard.positions.count
            let part = range.clamped(to: start..<start + count)
            if !part.isEmpty {
                shard.data.withUnsafeBytes { bytes in
                    for (index, tensor) in geometry.tensors.enumerated() {
                        let (element, offset) = shard.tensors[index]
                        for token in part {
                            convertToFloat(
                                element, bytes.baseAddress! + offset + (token - start) * tensor.width * element.bytes,
                                target + (token - range.lowerBound) * width + geometry.offsets[index], tensor.width)
                        }
                    }
                }
                for token in part {
                    rotation.apply(
                        target + (token - range.lowerBound) * width, position: Int(shard.positions[token - start]),
                        direction: -1)
                }
            }
            start += count
        }
    }

    /// Position of a token.
    public func position(of token: Int) -> Int {
        var start = 0
        for shard in shards {
            if token - start < shard.positions.count { return Int(shard.positions[token - start]) }
            start += shard.positions.count
        }
        preconditionFailure("token \(token) of \(tokens)")
    }

    /// The tokens of a range as the engine caches them, rows in canonical order. F16 samples only.
    public func cached(_ range: Range<Int>) -> [UInt8] {
        let width = geometry.rowElements
        var result = [UInt8](repeating: 0, count: range.count * width * 2)
        var start = 0
        for shard in shards {
            for token in range.clamped(to: start..<start + shard.positions.count) {
                for (index, tensor) in geometry.tensors.enumerated() {
                    let from = shard.tensors[index].offset + (token - start) * tensor.width * 2
                    let to = ((token - range.lowerBound) * width + geometry.offsets[index]) * 2
                    shard.data.withUnsafeBytes { bytes in
                        result.replaceSubrange(to..<to + tensor.width * 2, with: bytes[from..<from + tensor.width * 2])
                    }
                }
            }
            start += shard.positions.count
        }
        return result
    }

    private static func geometry(of file: Safetensors) throws -> Geometry {
        let style = file.metadata["rope_style"] ?? "none"
        var tensors: [TensorGeometry] = []
        for (name, tensor) in file.tensors where name.hasPrefix("k.") || name.hasPrefix("v.") {
            guard let layer = Int(name.dropFirst(2)), tensor.shape.count == 3 else {
                throw CalibrationError("tensor \(name) has shape \(tensor.shape); [tokens, heads, headDim] is needed")
            }
            var rotary: Rotary?
            if name.hasPrefix("k."), style != "none" {
                guard let base = file.metadata["rope_base"].flatMap(Double.init), base > 1,
                    let dims = file.metadata["rope_dims"].flatMap({ Int($0) })
                else { throw CalibrationError("metadata rope_base and rope_dims are needed with rope_style \(style)") }
                switch style {
                case "interleaved": rotary = Rotary(style: .interleaved, dims: dims, base: base)
                case "half_split", "halfSplit": rotary = Rotary(style: .halfSplit, dims: dims, base: base)
                default:
                    throw CalibrationError("rope_style \(style); none, interleaved and half_split are known")
                }
            }
            tensors.append(
                TensorGeometry(
                    layer: layer, role: name.hasPrefix("k.") ? .key : .value, heads: tensor.shape[1],
                    headDim: tensor.shape[2], rotary: rotary))
        }
        return try Geometry(tensors: tensors)
    }

    private static func shard(_ data: Data, _ file: Safetensors, _ geometry: Geometry) throws -> Shard {
        guard let positions = file.tensors["positions"], positions.dtype == "I32", positions.shape.count == 1 else {
            throw CalibrationError("no I32 tensor \"positions\"")
        }
        let types: [String: ElementType] = [
            "F16": .f16, "BF16": .bf16, "F32": .f32, "F8_E4M3": .e4m3, "F8_E5M2": .e5m2,
        ]
        let tensors = try geometry.tensors.map { tensor -> (ElementType, Int) in
            let name = "\(tensor.role == .key ? "k" : "v").\(tensor.layer)"
            guard let entry = file.tensors[name], entry.shape[0] == positions.shape[0], let type = types[entry.dtype]
            else {
                throw CalibrationError("tensor \(name) does not have \(positions.shape[0]) tokens of a float type")
            }
            return (type, entry.range.lowerBound)
        }
        let values = data.withUnsafeBytes { array($0, positions.range, of: Int32.self) }
        guard values.allSatisfy({ $0 >= 0 }) else { throw CalibrationError("negative positions") }
        return Shard(data: data, positions: values, tensors: tensors)
    }
}
