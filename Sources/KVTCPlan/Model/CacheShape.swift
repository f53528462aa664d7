import FoundationEssentials
import KVTCModel

/// How large a token of a model is in its cache.
public struct CacheShape: Hashable, Sendable {
    /// Bytes, all layers.
    public var tokenBytes: Int
    /// Elements that attention compares for each pair of tokens, all layers: heads × head dimension × layers. 0: unknown.
    public var attention: Int

    /// Bytes that are known.
    public init(tokenBytes: Int) { (self.tokenBytes, attention) = (tokenBytes, 0) }

    /// Keys and values of layers that are all alike.
    public init(layers: Int, heads: Int, headDim: Int, element: Element) throws(ModelError) {
        guard (1...4096).contains(layers) else {
            throw ModelError(field: "layers", "\(layers); 1 to 4096 are allowed")
        }
        let tensors = (0..<layers).flatMap { layer in
            [Role.key, .value].map { TensorGeometry(layer: layer, role: $0, heads: heads, headDim: headDim) }
        }
        tokenBytes = try Geometry(tensors: tensors).rowElements * element.bytes
        attention = 0
    }

    /// What a model's `config.json` says, in the form that transformers writes.
    /// - Parameter element: of the cache; nil: that of the model.
    public init(configuration json: some Collection<UInt8>, element: Element? = nil) throws(ModelError) {
        let file: ModelConfiguration
        do { file = try JSONDecoder().decode(ModelConfiguration.self, from: Data(json)) } catch {
            throw ModelError(field: "config.json", "is no JSON object with a model's numbers")
        }
        let model = file.textConfig?.value ?? file
        guard let all = model.layers else { throw ModelError(field: "num_hidden_layers", "is missing") }
        guard let queries = model.heads else { throw ModelError(field: "num_attention_heads", "is missing") }
        // Layers of other kinds keep a state of fixed size.
        let layers = model.layerTypes.map { $0.count { $0.hasSuffix("_attention") && $0 != "linear_attention" } } ?? all
        guard (1...4096).contains(layers), (1...1024).contains(queries) else {
            throw ModelError(
                field: "num_hidden_layers",
                "\(layers) layers with attention of \(queries) heads: 1 to 4096 and 1 to 1024 are allowed")
        }
        guard let headDim = model.headDim ?? model.hidden.map({ $0 / queries }), (1...8192).contains(headDim) else {
            throw ModelError(field: "head_dim", "neither it nor a hidden_size that gives 1 to 8192 is there")
        }
        guard let element = element ?? model.element ?? file.element else {
            throw ModelError(field: "torch_dtype", "is missing or no format of a cache: name one with --element")
        }
        if let rank = model.latentRank {
            let width = rank.addingReportingOverflow(model.rotaryDim ?? 0)
            guard !width.overflow else { throw ModelError(field: "kv_lora_rank", "\(rank) is too much") }
            let latents = (0..<layers).map {
                TensorGeometry(layer: $0, role: .latent, heads: 1, headDim: width.partialValue)
            }
            tokenBytes = try Geometry(tensors: latents).rowElements * element.bytes
        } else {
            let shape = try CacheShape(
                layers: layers, heads: model.cachedHeads ?? queries, headDim: headDim, element: element)
            tokenBytes = shape.tokenBytes
        }
        attention = layers * queries * headDim
    }
}

/// The members of `config.json` that say how large a cache is.
private struct ModelConfiguration: Decodable {
    final class Box: Decodable {
        let value: ModelConfiguration
        init(from decoder: any Decoder) throws { value = try ModelConfiguration(from: decoder) }
    }

    /// Of models that do not read text only.
    var textConfig: Box?
    var layers, heads, cachedHeads, headDim, hidden, latentRank, rotaryDim: Int?
    var layerTypes: [String]?
    var torchDtype, dtype: String?

    private enum CodingKeys: String, CodingKey {
        case dtype
        case textConfig = "text_config"
        case layers = "num_hidden_layers"
        case heads = "num_attention_heads"
        case cachedHeads = "num_key_value_heads"
        case headDim = "head_dim"
        case hidden = "hidden_size"
        case latentRank = "kv_lora_rank"
        case rotaryDim = "qk_rope_head_dim"
        case layerTypes = "layer_types"
        case torchDtype = "torch_dtype"
    }

    var element: Element? {
        switch torchDtype ?? dtype {
        case "bfloat16": .bf16
        case "float16": .f16
        case "float32": .f32
        default: nil
        }
    }
}
