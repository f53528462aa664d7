import FoundationEssentials
import KVTCCodec

/// Puts a profile file together; `ProfileFormat.md` describes it.
enum ProfileWriter {
    struct BasisTensors {
        var levels: [Int16]
        var digits: [Int8]
        var components: [Int32]
        var exponents: [Int8]
    }

    static func file(
        metadata: ProfileMetadata, geometry: Geometry, mean: [Float], weight: [Float], bases: [BasisTensors],
        frequencies: [UInt16]
    ) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let json = String(decoding: try encoder.encode(metadata), as: UTF8.self)
        let width = geometry.rowElements
        var tensors: [(name: String, dtype: String, shape: [Int], bytes: [UInt8])] = [
            ("mean", "F32", [width], bytes(of: mean)), ("weight", "F32", [width], bytes(of: weight)),
            ("entropy.frequencies", "U16", [EntropyTables.classes, EntropyTables.symbols], bytes(of: frequencies)),
        ]
        for (index, table) in ProfileMetadata.ropeTables(of: geometry).enumerated() {
            tensors.append(("rope.\(index)", "F32", [table.count], bytes(of: table)))
        }
        for (index, basis) in bases.enumerated() {
            let digits = basis.components.count
            tensors += [
                ("basis.\(index).level", "I16", [basis.levels.count], bytes(of: basis.levels)),
                ("basis.\(index).component", "I32", [digits], bytes(of: basis.components)),
                ("basis.\(index).exponent", "I8", [digits], bytes(of: basis.exponents)),
                (
                    "basis.\(index).digits", "I8", [digits, basis.digits.count / max(digits, 1)],
                    bytes(of: basis.digits)
                ),
            ]
        }
        return try Safetensors.serialise(metadata: ["kvtc": json], tensors: tensors)
    }
}
