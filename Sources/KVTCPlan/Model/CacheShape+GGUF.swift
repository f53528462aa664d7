import KVTCModel

extension CacheShape {
    /// Whether a file that begins so is GGUF.
    public static func isGGUF(_ beginning: some Sequence<UInt8>) -> Bool { beginning.starts(with: GGUFMetadata.magic) }

    /// What the header of a GGUF file says: of the names in gguf.md, those that llama.cpp lays its cache out by.
    /// - Parameter element: of the cache; llama.cpp's is f16 unless told otherwise, whatever the weights are.
    public init(gguf file: GGUFReader, element: Element = .f16) throws(ModelError) {
        let model = try GGUFMetadata(file)
        func refuse(_ name: String, _ reason: String = "is missing") -> ModelError {
            ModelError(field: "\(model.architecture.isEmpty ? "general" : model.architecture).\(name)", reason)
        }
        guard !model.architecture.isEmpty else { throw refuse("architecture") }
        guard let blocks = model("block_count") else { throw refuse("block_count") }
        guard model("attention.key_length_swa") == nil else {
            throw refuse(
                "attention.key_length_swa",
                "kvtcd has no layers of different width: give --token-bytes to plan all the same")
        }
        // Layers that only predict further tokens, or read what earlier ones cached, cache nothing themselves.
        let others = ["nextn_predict_layers", "attention.shared_kv_layers"].map { max(0, min(model($0) ?? 0, blocks)) }
        guard (1...4096).contains(blocks), others.reduce(0, +) < blocks else {
            throw refuse("block_count", "\(blocks), of which \(others) have no cache: 1 to 4096 with one are allowed")
        }
        let layers = blocks - others.reduce(0, +)
        guard let queries = try model.each("attention.head_count", layers: layers) else {
            throw refuse("attention.head_count")
        }
        let most = queries.max() ?? 0
        guard most > 0, queries.allSatisfy((0...1024).contains) else {
            throw refuse("attention.head_count", "1 to 1024 are allowed, and 0 in some layers")
        }
        let heads = try model.each("attention.head_count_kv", layers: layers) ?? queries
        guard let keys = model("attention.key_length") ?? model("embedding_length").map({ $0 / most }) else {
            throw refuse("embedding_length")
        }
        let values = model("attention.value_length") ?? keys
        // Latents are cached once, and values are a part of them.
        let isLatent = model("attention.key_length_mla") != nil
        // Of the others each has a state of fixed size.
        let interval = max(1, model("full_attention_interval") ?? 1)
        let cached = (0..<layers).filter { heads[$0] != 0 && ($0 + 1) % interval == 0 }
        let tensors = cached.flatMap { layer in
            isLatent
                ? [TensorGeometry(layer: layer, role: .latent, heads: heads[layer], headDim: keys)]
                : [(Role.key, keys), (.value, values)].map { role, width in
                    TensorGeometry(layer: layer, role: role, heads: heads[layer], headDim: width)
                }
        }
        self.init(tokenBytes: try Geometry(tensors: tensors).rowElements * element.bytes)
        attention = cached.reduce(0) { $0 + queries[$1] } * keys
    }
}
