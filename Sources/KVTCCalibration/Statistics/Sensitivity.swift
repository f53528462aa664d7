import FoundationEssentials
import KVTCCodec
import KVTCModel

/// What a squared error in each tensor costs the model, as the worker measured it (format "kvtc-sensitivity-1").
public struct Sensitivity: Sendable, Decodable {
    struct Layer: Decodable {
        var layer: Int
        /// Of each tensor that the layer has.
        var key, value, latent: Double?
    }

    var format: String
    var layers: [Layer]

    /// Reads and checks the JSON.
    public init(contentsOf path: String) throws {
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: path)) else {
            throw CalibrationError("\(path) can't be read; is it there and readable?")
        }
        do { self = try JSONDecoder().decode(Sensitivity.self, from: data) } catch {
            throw CalibrationError("\(path) is not a sensitivity file: \(error)")
        }
        guard format == "kvtc-sensitivity-1" else { throw CalibrationError("\(path): format \(format) is not known") }
        guard layers.allSatisfy({ [$0.key, $0.value, $0.latent].allSatisfy { ($0 ?? 1) > 0 && ($0 ?? 1).isFinite } })
        else {
            throw CalibrationError("\(path): sensitivities must be above 0")
        }
    }

    /// Cost of a unit of squared error in a tensor; nil where it was not measured.
    func cost(of tensor: TensorGeometry) -> Double? {
        layers.first { $0.layer == tensor.layer }.flatMap {
            switch tensor.role {
            case .key: $0.key
            case .value: $0.value
            case .latent: $0.latent
            }
        }
    }
}

/// How squared errors in different tensors are weighed against each other.
public enum Weighting: Sendable {
    /// By the Fisher information within each head, from gradients: a third less divergence than by sensitivity.
    case gradients(FisherInformation)
    /// By measured sensitivity: half the divergence at the same ratio.
    case sensitivity(Sensitivity)
    /// By one over each tensor's variance, where nothing was measured.
    case variance
    /// All alike, keys and values on bases of their own: the published method.
    case published

    var isPublished: Bool { if case .published = self { true } else { false } }

    var name: String {
        switch self {
        case .gradients: "gradients"
        case .sensitivity: "sensitivity"
        case .variance: "variance"
        case .published: "none"
        }
    }

    /// Weight of each element of a row, scaled so that weighted variances average 1.
    func weights(geometry: Geometry, variances: [Double]) throws -> [Float] {
        let weights = try costs(geometry: geometry, variances: variances).map { $0.squareRoot() }
        let total = zip(weights, variances).reduce(0) { $0 + $1.0 * $1.0 * $1.1 }
        guard total > 0 else { throw CalibrationError("the samples do not vary") }
        let scale = (Double(variances.count) / total).squareRoot()
        return weights.map { Float($0 * scale) }
    }

    /// What a unit of squared error of each element costs, in any unit.
    private func costs(geometry: Geometry, variances: [Double]) throws -> [Double] {
        func ofTensors(_ cost: (TensorGeometry, Range<Int>) throws -> Double) rethrows -> [Double] {
            try zip(geometry.tensors, geometry.offsets).flatMap { tensor, offset in
                [Double](repeating: try cost(tensor, offset..<offset + tensor.width), count: tensor.width)
            }
        }
        return switch self {
        case .gradients(let information): information.costs(variances: variances)
        case .published: [Double](repeating: 1, count: variances.count)
        case .variance:
            ofTensors { 1 / max(variances[$1].reduce(0, +) / Double($1.count), 1e-12) }
        case .sensitivity(let table):
            try ofTensors { tensor, _ in
                guard let measured = table.cost(of: tensor) else {
                    throw CalibrationError("the sensitivity file lacks the \(tensor.role) of layer \(tensor.layer)")
                }
                return measured
            }
        }
    }
}
