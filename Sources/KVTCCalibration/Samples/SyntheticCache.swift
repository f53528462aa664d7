import Dispatch
import FoundationEssentials
import Glibc
import KVTCCodec
import KVTCModel

/// A cache of any size that no model computed, for measuring calibration: made while it is read, the same on every reading.
///
/// Each layer's keys and values are a linear map of a state that changes slowly from layer to layer, as the residual stream
/// does: a first-order autoregressive process over layers, of which each coefficient has a variance of its own. The maps
/// differ from layer to layer, so that components of neighbouring layers are correlated but not aligned. Variances and
/// correlation are fitted to those of a real model (SmolLM2-135M, weighted, 30 layers of 384 elements). Variance lost when
/// 2, 7, 25 and 36 of 100 components are kept, real and synthetic: each layer by itself 0.56, 0.22, 0.028, 0.012 and 0.62,
/// 0.20, 0.022, 0.009; all layers jointly 0.23, 0.054, 0.0049, 0.0018 and 0.20, 0.057, 0.0056, 0.0020.
package struct SyntheticCache: SampleSource {
    package let geometry: Geometry
    package let model = "synthetic"
    package let weightsDigest: String? = nil
    package let rank: ModelRank? = nil
    package let tokens: Int
    package var contexts: [Range<Int>] { (0..<tokens / 2048).map { $0 * 2048..<($0 + 1) * 2048 } }
    private let layers: Int
    private let width: Int
    /// Standard deviation of each coefficient of the state.
    private let scales: [Float]
    /// [layer][coefficient]: what a layer's map multiplies by, between two Hadamard transforms.
    private let maps: [Float]
    private let seed: UInt64

    /// Correlation of a coefficient with itself a layer before.
    private static let correlation: Float = 0.9

    /// - Parameter heads: a power of two, as is `headDim`.
    package init(layers: Int, heads: Int, headDim: Int, tokens: Int, seed: UInt64) throws {
        self.layers = layers
        width = 2 * heads * headDim
        self.tokens = tokens
        self.seed = seed
        geometry = try Geometry(
            tensors: (0..<layers).flatMap { layer in
                [Role.key, .value].map {
                    TensorGeometry(layer: layer, role: $0, heads: heads, headDim: headDim)
                }
            })
        let width = width
        func decay(_ index: Int, _ exponent: Double) -> Float {
            Float(pow(1 + (Double(index) + 0.5) / Double(width) / 0.1, -exponent))
        }
        var random = SplitMix(state: seed)
        scales = (0..<width).map { decay($0, 2) * (random.next() & 1 == 0 ? 1 : -1) }
        maps = (0..<layers).flatMap { _ -> [Float] in
            var order = Array(0..<width)
            for index in stride(from: width - 1, to: 0, by: -1) {
                order.swapAt(index, Int(random.next() % UInt64(index + 1)))
            }
            return order.map { decay($0, 0.3) * (random.next() & 1 == 0 ? 1 : -1) }
        }
    }

    package func place(of token: Int) -> String { "synthetic token \(token)" }

    package func rows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        let workers = max(1, min(range.count / 8, ProcessInfo.processInfo.activeProcessorCount))
        // Justified: every worker writes rows of its own.
        nonisolated(unsafe) let target = target
        let own = self
        DispatchQueue.concurrentPerform(iterations: workers) { worker in
            let first = range.lowerBound + range.count * worker / workers
            let end = range.lowerBound + range.count * (worker + 1) / workers
            for token in first..<end {
                own.row(token, into: target + (token - range.lowerBound) * own.geometry.rowElements)
            }
        }
    }

    /// Keys and values have no positions: rotation costs calibration next to nothing.
    private func row(_ token: Int, into target: UnsafeMutablePointer<Float>) {
        var random = SplitMix(state: seed &+ UInt64(token) &* 0xD134_2543_DE82_EF95)
        let innovation = (1 - SyntheticCache.correlation * SyntheticCache.correlation).squareRoot()
        let half = width / 2
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * width) { buffer in
            let (state, values) = (buffer.baseAddress!, buffer.baseAddress! + width)
            for layer in 0..<layers {
                SyntheticCache.normal(&random, values, width)
                if layer == 0 {
                    for index in 0..<width { state[index] = values[index] }
                } else {
                    for index in 0..<width {
                        state[index] = SyntheticCache.correlation * state[index] + innovation * values[index]
                    }
                }
                scales.withUnsafeBufferPointer { scales in
                    for index in 0..<width { values[index] = state[index] * scales[index] }
                }
                SyntheticCache.hadamard(values, width)
                maps.withUnsafeBufferPointer { maps in
                    let own = maps.baseAddress! + layer * width
                    for index in 0..<width { values[index] *= own[index] }
                }
                SyntheticCache.hadamard(values, width)
                (target + layer * half).update(from: values, count: half)
                (target + (layers + layer) * half).update(from: values + half, count: half)
            }
        }
    }

    /// Variance 1, from the sum of the four 16-bit quarters of a random word (kurtosis 2.7).
    private static func normal(_ random: inout SplitMix, _ target: UnsafeMutablePointer<Float>, _ count: Int) {
        let scale = Float(3.0.squareRoot()) / 65_536
        for index in 0..<count {
            let word = random.next()
            let sum = Int32(word & 0xFFFF) + Int32(word >> 16 & 0xFFFF) + Int32(word >> 32 & 0xFFFF) + Int32(word >> 48)
            target[index] = Float(sum - 131_070) * scale
        }
    }

    /// Orthonormal Walsh–Hadamard transform in place; `count` is a power of two.
    private static func hadamard(_ values: UnsafeMutablePointer<Float>, _ count: Int) {
        var half = 1
        while half < count {
            for start in stride(from: 0, to: count, by: 2 * half) {
                let (low, high) = (values + start, values + start + half)
                for index in 0..<half {
                    let (a, b) = (low[index], high[index])
                    low[index] = a + b
                    high[index] = a - b
                }
            }
            half *= 2
        }
        let scale = 1 / Float(count).squareRoot()
        for index in 0..<count { values[index] *= scale }
    }
}
