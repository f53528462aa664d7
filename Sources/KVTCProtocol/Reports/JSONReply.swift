import FoundationEssentials

extension JSONReply {
    /// The value as one line of JSON with sorted keys in snake case. All numbers in it must be finite.
    public init(_ value: some Encodable) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        // Numbers that are not finite are all that can fail; an empty object beats a crash.
        let data = try? encoder.encode(value)
        self.init(json: data.map { String(decoding: $0, as: UTF8.self).visibleJSON } ?? "{}")
    }

    /// Reads such a value.
    public func decoded<Value: Decodable>(as _: Value.Type = Value.self) throws -> Value {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Value.self, from: Data(json.utf8))
    }
}
