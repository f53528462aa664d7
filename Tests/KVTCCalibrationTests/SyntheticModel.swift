import CKernels
import Foundation
import KVTCCalibration
import KVTCCodec
import KVTCModel
import TestSupport

/// A model that never ran: rows driven by a few latents that all layers share, keys rotated to their positions, in any shape
/// and number format. Without rotation undone its keys are not of low rank: a calibration that gets it wrong shows.
struct SyntheticModel {
    var geometry: Geometry
    var element = Element.f16
    var name = "synthetic"
    var rank: ModelRank?
    /// Of the loadings; the latents have seeds of their own.
    var seed: UInt64 = 7
    /// Standard deviation of what the latents do not explain; those are from 2 downwards.
    var noise: Float = 0.02
    static let latents = 24

    init(_ tensors: [TensorGeometry], element: Element = .f16) throws {
        geometry = try Geometry(tensors: tensors)
        self.element = element
    }

    /// Rows at these positions as a cache holds them: [positions][rowElements] elements.
    func cached(_ positions: [Int], seed: UInt64) -> [UInt8] {
        let width = geometry.rowElements
        var loadings = SeededGenerator(seed: self.seed)
        let table = (0..<SyntheticModel.latents * width).map { _ in loadings.normal() / 5 }
        let mean = (0..<width).map { _ in loadings.normal() }
        var random = SeededGenerator(seed: seed)
        let rotation = Rotation(geometry: geometry)
        var bytes = [UInt8](repeating: 0, count: positions.count * width * element.bytes)
        for (index, position) in positions.enumerated() {
            var row = mean
            for latent in 0..<SyntheticModel.latents {
                let value = random.normal() * 2 * Float(exp2(-Double(latent) / 6))
                for column in 0..<width { row[column] += value * table[latent * width + column] }
            }
            for column in 0..<width { row[column] += noise * random.normal() }
            row.withUnsafeMutableBufferPointer { rotation.apply($0.baseAddress!, position: position, direction: 1) }
            bytes.withUnsafeMutableBytes {
                _ = kv_best().pointee.convert.from_float(
                    kv_element(UInt32(element.rawValue)), row, $0.baseAddress! + index * width * element.bytes, width)
            }
        }
        return bytes
    }

    /// Writes a sample file of these contexts, in the format of `kvtc.calibration.capture`.
    func write(_ path: String, contexts: [[Int]], seed: UInt64, metadata changes: [String: String] = [:]) throws {
        let rows = contexts.enumerated().flatMap { cached($0.element, seed: seed + UInt64($0.offset)) }
        try write(path, positions: contexts.flatMap { $0 }, rows: rows, metadata: changes)
    }

    /// Writes these elements, [positions][rowElements], as a sample file.
    func write(_ path: String, positions: [Int], rows: [UInt8], metadata changes: [String: String] = [:]) throws {
        let rowBytes = geometry.rowElements * element.bytes
        let types: [Element: String] = [
            .f16: "F16", .bf16: "BF16", .f32: "F32", .e4m3: "F8_E4M3", .e5m2: "F8_E5M2",
        ]
        var metadata = ["format": "kvtc-samples-1", "model": name]
        var tensors: [Safetensors.Source] = [.init("positions", "I32", [positions.count], positions.map(Int32.init))]
        let roles: [Role: String] = [.key: "k", .value: "v", .latent: "c"]
        for (tensor, offset) in zip(geometry.tensors, geometry.offsets) {
            var own: [UInt8] = []
            for row in positions.indices {
                let start = row * rowBytes + offset * element.bytes
                own += rows[start..<start + tensor.width * element.bytes]
            }
            tensors.append(
                .init(
                    "\(roles[tensor.role]!).\(tensor.layer)", types[element]!,
                    [positions.count, tensor.heads, tensor.headDim], own))
            let isRotated = tensor.role == .key || tensor.role == .latent
            if let rotary = tensor.rotary {
                metadata["rope_style"] = rotary.style == .interleaved ? "interleaved" : "half_split"
                metadata["rope_offset"] = "\(rotary.offset)"
                tensors.append(
                    .init(
                        "rope.\(tensor.layer)", "F32", [rotary.inverseFrequencies.count], rotary.inverseFrequencies))
            } else if isRotated, !geometry.tensors.contains(where: { $0.layer == tensor.layer && $0.rotary != nil }) {
                tensors.append(.init("rope.\(tensor.layer)", "F32", [0], [Float]()))
            }
        }
        if let rank { (metadata["rank"], metadata["world"]) = ("\(rank.index)", "\(rank.world)") }
        metadata.merge(changes) { $1 }
        var file = Data()
        try Safetensors.serialise(metadata: metadata, tensors: tensors) { file.append(contentsOf: $0) }
        try file.write(to: URL(filePath: path))
    }

    /// Eight contexts of 160 tokens at different positions.
    static let contexts = (0..<8).map { Array($0 * 100..<$0 * 100 + 160) }

    /// Calibrates on samples of these contexts.
    func profile(contexts: [[Int]] = SyntheticModel.contexts, metadata: [String: String] = [:], layerGroups: Int = 1)
        throws -> Profile
    {
        let directory = try TemporaryDirectory()
        try write(directory.file("samples.safetensors"), contexts: contexts, seed: 100, metadata: metadata)
        let samples = try SampleSet(paths: [directory.file("samples.safetensors")])
        return try Profile(
            bytes: [UInt8](
                try Calibrator(samples: samples, weighting: .variance, layerGroups: layerGroups) { _ in }.run()))
    }
}

/// Elements of a page as floats.
func floats(_ bytes: [UInt8], _ element: Element) -> [Float] {
    [Float](unsafeUninitializedCapacity: bytes.count / element.bytes) { buffer, count in
        count = bytes.count / element.bytes
        convertToFloat(element, bytes, buffer.baseAddress!, count)
    }
}
