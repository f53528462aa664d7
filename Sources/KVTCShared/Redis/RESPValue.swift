/// What a server answers, in version 2 of the Redis serialisation protocol.
public enum RESPValue: Sendable, Hashable {
    /// A short text, as "OK" is.
    case simple(String)
    /// An error, which begins with a word for its kind.
    case error(String)
    /// A number.
    case integer(Int64)
    /// Bytes.
    case bulk([UInt8])
    /// Nothing of that name.
    case null
    /// Several.
    case array([RESPValue])

    /// The bytes of a bulk or a text.
    public var bytes: [UInt8]? {
        switch self {
        case .bulk(let bytes): bytes
        case .simple(let text): Array(text.utf8)
        default: nil
        }
    }

    /// The text of a bulk or of a short text.
    public var text: String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    /// The number.
    public var integer: Int64? { if case .integer(let number) = self { number } else { nil } }

    /// The values of an array.
    public var array: [RESPValue]? { if case .array(let values) = self { values } else { nil } }
}
