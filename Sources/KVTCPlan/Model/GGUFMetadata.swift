import KVTCModel

/// The numbers in the header of a GGUF file (format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
struct GGUFMetadata {
    /// Such as "llama": what the names of its numbers begin with.
    private(set) var architecture = ""
    /// By name; of an array all elements. What is no whole number is left out.
    private var numbers: [String: [Int]] = [:]

    static let magic = Array("GGUF".utf8)
    /// Far above any model's; most have 20 to 60.
    private static let mostKeys = 1 << 16
    /// One for each layer. Longer arrays are vocabularies.
    private static let longestArray = 4096

    /// Reads the header, which says nothing of its own length.
    init(_ file: GGUFReader) throws(ModelError) {
        var file = file
        guard try file.take(4) == Self.magic else { throw ModelError(field: "gguf", "begins otherwise") }
        let version = try file.number(4)
        guard (2...3).contains(version) else {
            throw ModelError(field: "gguf.version", "\(version); 2 and 3 can be read, in little-endian order")
        }
        _ = try file.number(8)
        let count = try file.number(8)
        guard count <= Self.mostKeys else {
            throw ModelError(field: "gguf.metadata", "\(count) entries; at most \(Self.mostKeys) are read")
        }
        for _ in 0..<count {
            let key = try file.string()
            let type = try file.number(4)
            if key == "general.architecture", type == GGUFReader.string {
                architecture = try file.string()
            } else {
                let values = try type == GGUFReader.array ? array(&file) : [file.value(type)]
                numbers[key] = values.contains(nil) ? nil : values.compactMap(\.self)
            }
        }
    }

    private func array(_ file: inout GGUFReader) throws(ModelError) -> [Int?] {
        let (type, count) = (try file.number(4), try file.number(8))
        if let width = GGUFReader.widths[type], count > Self.longestArray {
            try file.skip(count, of: width)
            return [nil]
        }
        var values: [Int?] = []
        for _ in 0..<count {
            let value = try file.value(type)
            if values.count < Self.longestArray { values.append(value) }
        }
        return values
    }

    /// A number of the architecture; nil where it is missing.
    func callAsFunction(_ name: String) -> Int? { numbers["\(architecture).\(name)"]?.first }

    /// A number for each layer, which may be one for all.
    func each(_ name: String, layers: Int) throws(ModelError) -> [Int]? {
        guard let values = numbers["\(architecture).\(name)"] else { return nil }
        if values.count == 1 { return Array(repeating: values[0], count: layers) }
        guard values.count >= layers else {
            throw ModelError(field: "\(architecture).\(name)", "\(values.count) numbers for \(layers) layers")
        }
        return Array(values[..<layers])
    }
}
