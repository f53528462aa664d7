import FoundationEssentials
import KVTCCodec
import KVTCModel

/// A finished profile, ready to be written; `ProfileFormat.md` describes the file.
struct ProfileFile {
    var metadata: ProfileMetadata
    var geometry: Geometry
    var mean: [Float]
    var weight: [Float]
    var bases: [BasisPart]
    /// Of each basis.
    var levels: [[Int16]]
    var frequencies: [UInt16]
    var metric: MetricRoots?

    /// The file in memory.
    func data() throws -> Data {
        var file = Data()
        try Safetensors.serialise(metadata: sealed(), tensors: tensors()) { file.append(contentsOf: $0) }
        return file
    }

    /// Writes the file, tensor by tensor: the digits of a large model take gigabytes. It appears whole or not at all.
    func write(to path: String) throws {
        let file = try OutputFile(path: path)
        try Safetensors.serialise(metadata: sealed(), tensors: tensors()) { try file.write($0) }
        try file.finish()
    }

    /// The metadata with the checksum of the file that has it.
    private func sealed() throws -> [String: String] {
        var metadata = ["kvtc": try json(), ProfileSeal.key: ProfileSeal.blank]
        let sum = ProfileSeal.Sum()
        try Safetensors.serialise(metadata: metadata, tensors: tensors()) { sum.add($0) }
        metadata[ProfileSeal.key] = sum.digits()
        return metadata
    }

    private func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return String(decoding: try encoder.encode(metadata), as: UTF8.self)
    }

    private func tensors() -> [Safetensors.Source] {
        let width = geometry.rowElements
        // The bases first: they are mapped, and lie where cache lines begin.
        var tensors = bases.enumerated().map { index, basis in
            let (bytes, quads) = Basis.pack(
                digits: basis.digits.digits, width: basis.columns.width, components: basis.digits.components,
                exponents: basis.digits.exponents)
            return Safetensors.Source(
                "basis.\(index).packed", "U8", [(basis.columns.width + 31) / 32, quads, 32, 4], bytes)
        }
        tensors += [
            .init("mean", "F32", [width], mean), .init("weight", "F32", [width], weight),
            .init("entropy.frequencies", "U16", [EntropyTables.classes, EntropyTables.symbols], frequencies),
        ]
        if let metric {
            for (name, matrices) in [("root", metric.root), ("inverse_root", metric.inverse)] {
                let triangles = matrices.triangles
                tensors.append(.init(name, "F16", [triangles.count], triangles))
            }
        }
        for (index, table) in RopeTables(of: geometry.tensors).tables.enumerated() {
            tensors.append(.init("rope.\(index)", "F32", [table.count], table))
        }
        for (index, (basis, levels)) in zip(bases, levels).enumerated() {
            let digits = basis.digits.components.count
            tensors += [
                .init("basis.\(index).level", "I16", [levels.count], levels),
                .init("basis.\(index).component", "I32", [digits], basis.digits.components),
                .init("basis.\(index).exponent", "I8", [digits], basis.digits.exponents),
            ]
        }
        return tensors
    }
}
