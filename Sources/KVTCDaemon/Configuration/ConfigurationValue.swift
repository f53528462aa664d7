import KVTCSystem

/// A value of a setting, as it is read and shown.
public enum ConfigurationValue: Sendable, Hashable {
    /// Text.
    case text(String)
    /// A whole number.
    case integer(Int)
    /// A number of bytes; read as an integer or as text with a unit.
    case bytes(Int)
    /// A list.
    case list([ConfigurationValue])
    /// Anything that no setting takes, in words such as "a date".
    case other(String)

    /// The value as TOML.
    public var toml: String {
        switch self {
        case .text(let text): ConfigurationValue.quoted(text)
        case .integer(let number): "\(number)"
        case .bytes(let bytes): bytes > 0 && bytes % 1024 == 0 ? "\"\(ByteSize.text(bytes))\"" : "\(bytes)"
        case .list(let values): "[\(values.map(\.toml).joined(separator: ", "))]"
        case .other(let words): words
        }
    }

    /// What kind of value it is, for an error.
    var kind: String {
        switch self {
        case .text: "text"
        case .integer, .bytes: "a number"
        case .list: "a list"
        case .other(let words): words
        }
    }

    /// Whether text in it has a NUL character.
    var hasNUL: Bool {
        switch self {
        case .text(let text): text.utf8.contains(0)
        case .list(let values): values.contains(where: \.hasNUL)
        case .integer, .bytes, .other: false
        }
    }

    private static func quoted(_ text: String) -> String {
        text.unicodeScalars.reduce(into: "\"") { result, scalar in
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case let control where control.value < 0x20 || control.value == 0x7F:
                result += (control.value < 0x10 ? "\\u000" : "\\u00") + String(control.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        } + "\""
    }
}

extension ConfigurationValue: Encodable {
    /// Text as text, numbers and bytes as numbers, lists as lists.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .text(let text), .other(let text): try container.encode(text)
        case .integer(let number), .bytes(let number): try container.encode(number)
        case .list(let values): try container.encode(values)
        }
    }
}
