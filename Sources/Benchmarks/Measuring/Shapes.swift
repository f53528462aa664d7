import KVTCCodec
import KVTCModel

/// Shapes of models that the benchmarks use without their weights.
enum Shapes {
    /// SmolLM2-135M: 30 layers, 3 heads of 64; 23 040 bytes a token.
    static let smolLM2 = shape(layers: 30, heads: 3, headDim: 64)
    /// Llama-3.1-8B: 32 layers, 8 heads of 128; 131 072 bytes a token.
    static let llama8B = shape(layers: 32, heads: 8, headDim: 128)

    private static func shape(layers: Int, heads: Int, headDim: Int) -> [TensorGeometry] {
        (0..<layers).flatMap { layer in
            [Role.key, .value].map { TensorGeometry(layer: layer, role: $0, heads: heads, headDim: headDim) }
        }
    }
}
