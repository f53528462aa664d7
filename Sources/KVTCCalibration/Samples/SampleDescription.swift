import KVTCCodec
import KVTCModel

/// What sample files hold, by the format that their metadata names.
public enum SampleContent: String, Sendable {
    /// Rows of a cache.
    case cache = "kvtc-samples-1"
    /// Derivatives by rows of a cache, of the log-likelihood of tokens drawn from a model's predictions.
    case gradients = "kvtc-gradients-1"

    var program: String { self == .cache ? "kvtc.calibration.capture" : "kvtc.calibration.gradients" }
}

/// What the names, shapes and metadata of a sample file say about the model.
struct SampleDescription {
    var geometry: Geometry
    var model: String
    var weightsDigest: String?
    var rank: ModelRank?

    private static let prefixes: [(text: String, role: Role)] = [("k.", .key), ("v.", .value), ("c.", .latent)]

    /// "k.7" for the key of layer 7.
    static func name(of tensor: TensorGeometry) -> String {
        prefixes.first { $0.role == tensor.role }!.text + String(tensor.layer)
    }

    init(of file: Safetensors, bytes: UnsafeRawBufferPointer, content: SampleContent) throws {
        guard file.metadata["format"] == content.rawValue else {
            throw CalibrationError(
                "its metadata lacks format \"\(content.rawValue)\"; capture with \(content.program)")
        }
        model = file.metadata["model"] ?? ""
        weightsDigest = file.metadata["weights"]
        rank = try SampleDescription.rank(file.metadata)
        var tensors: [TensorGeometry] = []
        for (name, tensor) in file.tensors {
            guard let prefix = SampleDescription.prefixes.first(where: { name.hasPrefix($0.text) }) else { continue }
            guard let layer = Int(name.dropFirst(2)), tensor.shape.count == 3 else {
                throw CalibrationError("tensor \(name) has shape \(tensor.shape); [tokens, heads, headDim] is needed")
            }
            tensors.append(
                TensorGeometry(layer: layer, role: prefix.role, heads: tensor.shape[1], headDim: tensor.shape[2]))
        }
        let keyed = Set(tensors.filter { $0.role == .key }.map(\.layer))
        for index in tensors.indices {
            // Where a layer has no key, its latent carries the rotated part.
            let (role, layer) = (tensors[index].role, tensors[index].layer)
            guard role == .key || role == .latent && !keyed.contains(layer) else { continue }
            tensors[index].rotary = try SampleDescription.rotary(of: layer, file, bytes)
        }
        do throws(ModelError) { geometry = try Geometry(tensors: tensors) } catch { throw CalibrationError("\(error)") }
    }

    /// The rotation of a layer: frequencies of its own ("rope.<layer>", empty: none), of all ("rope"), or geometric ones.
    private static func rotary(of layer: Int, _ file: Safetensors, _ bytes: UnsafeRawBufferPointer) throws -> Rotary? {
        let metadata = file.metadata
        let style: Rotary.Style
        switch metadata["rope_style"] ?? "none" {
        case "none": return nil
        case "interleaved": style = .interleaved
        case "half_split", "halfSplit": style = .halfSplit
        case let other: throw CalibrationError("rope_style \(other); none, interleaved and half_split are known")
        }
        guard let offset = Int(metadata["rope_offset"] ?? "0") else {
            throw CalibrationError("metadata rope_offset \"\(metadata["rope_offset"]!)\" is not a number")
        }
        if let table = file.tensors["rope.\(layer)"] ?? file.tensors["rope"] {
            guard table.dtype == "F32", table.shape.count == 1 else {
                throw CalibrationError(
                    "the frequencies of layer \(layer) are \(table.dtype) \(table.shape); F32 [pairs] is needed")
            }
            let values = array(bytes, table.range, of: Float.self)
            guard !values.isEmpty else { return nil }
            return Rotary(style: style, offset: offset, dims: 2 * values.count, inverseFrequencies: values)
        }
        guard let base = metadata["rope_base"].flatMap(Double.init), base > 1,
            let dims = metadata["rope_dims"].flatMap({ Int($0) })
        else {
            throw CalibrationError(
                "a rope_style needs the metadata rope_base and rope_dims, or the frequencies as F32 tensor \"rope\"")
        }
        return Rotary(style: style, offset: offset, dims: dims, base: base)
    }

    private static func rank(_ metadata: [String: String]) throws -> ModelRank? {
        guard metadata["rank"] != nil || metadata["world"] != nil else { return nil }
        guard let index = metadata["rank"].flatMap({ Int($0) }), let world = metadata["world"].flatMap({ Int($0) }),
            let rank = ModelRank(index: index, world: world)
        else {
            throw CalibrationError(
                "metadata rank \"\(metadata["rank"] ?? "")\" of world \"\(metadata["world"] ?? "")\"; 0 ≤ rank < world ≤ 4096 "
                    + "is needed")
        }
        return rank
    }

    /// Throws where another file's samples do not belong with those of the first.
    func check(against other: SampleDescription, first: String) throws {
        if rank != other.rank {
            throw CalibrationError(
                "is of \(rank?.description ?? "a whole model"), but \(first) of \(other.rank?.description ?? "a whole model"); "
                    + "calibrate each rank by itself")
        }
        if model != other.model {
            throw CalibrationError("is of the model \"\(model)\", but \(first) of \"\(other.model)\"")
        }
        if let weightsDigest, let others = other.weightsDigest, weightsDigest != others {
            throw CalibrationError(
                "comes from other weights than \(first), whatever their names; capture all from one model")
        }
        guard geometry != other.geometry else { return }
        let (own, others) = (Dictionary(of: geometry), Dictionary(of: other.geometry))
        for name in Set(own.keys).union(others.keys).sorted() where own[name] != others[name] {
            throw CalibrationError(
                "its tensors differ from those of \(first): \(name) is \(own[name]?.shape ?? "absent") here, "
                    + "\(others[name]?.shape ?? "absent") there")
        }
    }
}

extension TensorGeometry {
    fileprivate var shape: String {
        guard let rotary else { return "\(heads) × \(headDim)" }
        return "\(heads) × \(headDim) with \(rotary.dims) rotated from \(rotary.offset) (\(rotary.style))"
    }
}

extension Dictionary<String, TensorGeometry> {
    fileprivate init(of geometry: Geometry) {
        self.init(uniqueKeysWithValues: geometry.tensors.map { (SampleDescription.name(of: $0), $0) })
    }
}
