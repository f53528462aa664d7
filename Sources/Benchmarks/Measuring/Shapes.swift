import KVTCCodec
import KVTCModel

/// Shapes of models that the benchmarks use without their weights.
enum Shapes {
    /// SmolLM2-135M: 30 layers, 3 heads of 64; 23 040 bytes a token.
    static let smolLM2 = shape(layers: 30, heads: 3, headDim: 64)

    private static func shape(layers: Int, heads: Int, headDim: Int) -> [TensorGeometry] {
        (0..<layers).flatMap { layer in
            [Role.key, .value].map { TensorGeometry(layer: layer, role: $0, heads: heads, headDim: headDim) }
        }
    }
}
