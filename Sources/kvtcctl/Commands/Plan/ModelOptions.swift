import ArgumentParser
import KVTCModel
import KVTCPlan

/// How large a token is in the cache: by one of a model's files, by numbers, or in bytes.
struct ModelOptions: ParsableArguments {
    @Option(
        help: "The model: a GGUF file, a config.json or the directory that it is in, or a profile.",
        completion: .file(extensions: ["gguf", "json", "safetensors"]))
    var model: String?

    @Option(parsing: .unconditional, help: "Layers with a cache.", transform: Parsed.whole(1...4096))
    var layers: Int?

    @Option(parsing: .unconditional, help: "Heads of keys and values.", transform: Parsed.whole(1...1024))
    var kvHeads: Int?

    @Option(parsing: .unconditional, help: "Elements of a head.", transform: Parsed.whole(1...8192))
    var headDim: Int?

    @Option(
        help: "Format of the cache: f16, bf16, f32, e4m3 or e5m2 (default: that of config.json, or 16 bits).",
        transform: { text in
            guard let element = Element.allCases.first(where: { "\($0)" == text }) else {
                throw ValidationError("one of \(Element.allCases.map { "\($0)" }.joined(separator: ", ")) is needed")
            }
            return element
        })
    var element: Element?

    @Option(
        parsing: .unconditional, help: "Bytes of a token in the cache, all layers, such as 128KiB.",
        transform: Parsed.size(1...1 << 30))
    var tokenBytes: Int?

    func validate() throws {
        let numbers = [layers, kvHeads, headDim].compactMap(\.self)
        let ways = [model != nil, !numbers.isEmpty, tokenBytes != nil].count(where: \.self)
        guard ways == 1, numbers.isEmpty || numbers.count == 3 else {
            throw ValidationError(
                "How large is a token? Name --model with its GGUF file, config.json or profile, or --layers, --kv-heads and "
                    + "--head-dim, or --token-bytes."
            )
        }
    }

    /// The shape; complains about what it can't read.
    func shape() throws -> CacheShape {
        if let tokenBytes { return CacheShape(tokenBytes: tokenBytes) }
        do {
            if let layers, let kvHeads, let headDim {
                return try CacheShape(layers: layers, heads: kvHeads, headDim: headDim, element: element ?? .bf16)
            }
            return try ModelFile(model ?? "").shape(element)
        } catch {
            complain("\(model.map { "\($0): " } ?? "")\(error)")
            throw ExitCode.failure
        }
    }
}
