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

/// Sizes as people write them.
public enum ByteSize {
    private static let units = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]

    /// What sizes may look like.
    static let form = "bytes as a number, or text with B, KiB, MiB, GiB or TiB such as \"4GiB\""

    /// Why text is no size.
    struct Refusal: Error { var reason: String }

    /// Bytes of a text such as `4096`, `512MiB` or `1.5GiB`. More than a number holds is the largest number.
    static func read(_ text: String) -> Result<Int, Refusal> {
        func refuse(_ reason: String) -> Result<Int, Refusal> { .failure(Refusal(reason: reason)) }
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard !digits.isEmpty else { return refuse(text.isEmpty ? "is empty" : "does not begin with digits 0 to 9") }
        guard let number = Double(digits) else { return refuse("\(digits) is no number") }
        guard let (_, shift) = unit.isEmpty ? units[0] : units.first(where: { $0.0 == unit }) else {
            let meant = units.first { $0.0.lowercased() == unit.lowercased() }
            return refuse("there is no unit \(unit)" + (meant.map { " (\($0.0) is meant?)" } ?? ""))
        }
        let bytes = number * Double(1 << shift)
        return .success(bytes < 0x1p62 ? Int(bytes) : .max)
    }

    /// Bytes for people, to a tenth of the largest unit that they fill.
    static func rounded(_ bytes: Int) -> String {
        let unit = units.last { bytes >= 1 << $0.1 } ?? units[0]
        let tenths = (Double(bytes) / Double(1 << unit.1) * 10).rounded(.down) / 10
        return tenths == tenths.rounded() ? "\(Int(tenths))\(unit.0)" : "\(tenths)\(unit.0)"
    }

    /// Bytes with the largest unit that leaves a whole number.
    static func text(_ bytes: Int) -> String {
        let unit = units.last { bytes % (1 << $0.1) == 0 && bytes > 0 } ?? units[0]
        return unit.1 == 0 ? "\(bytes)" : "\(bytes >> unit.1)\(unit.0)"
    }
}
