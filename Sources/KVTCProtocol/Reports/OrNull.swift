/// A member of a JSON document that is there with the value null where it has none, so that a document's keys are always the
/// same.
@propertyWrapper public struct OrNull<Value: Encodable>: Encodable {
    /// The value, if there is one.
    public var wrappedValue: Value?

    /// A member with the value.
    public init(wrappedValue: Value?) {
        self.wrappedValue = wrappedValue
    }

    /// Writes the value or null.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let wrappedValue { try container.encode(wrappedValue) } else { try container.encodeNil() }
    }
}

extension OrNull: Decodable where Value: Decodable {
    /// Reads the value or null.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        wrappedValue = container.decodeNil() ? nil : try container.decode(Value.self)
    }
}

extension OrNull: Sendable where Value: Sendable {}
