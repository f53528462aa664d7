/// The members that a line of JSON may have, of all forms together.
struct Fields: Decodable {
    var timestamp: Time?
    var created: Time?
    var inputLength: Int?
    var outputLength: Int?
    var hashIds: [UInt64]?
    /// `messages` or `prompt`.
    var prompt: Prompt?
    var body: Body?
    var usage: Usage?
    var event: String?
    var obj: SGLangRequest?

    private enum Keys: String, CodingKey {
        case timestamp, created, messages, prompt, body, usage, event, obj
        case inputLength = "input_length"
        case outputLength = "output_length"
        case hashIds = "hash_ids"
    }

    init(from decoder: any Decoder) throws {
        let line = try decoder.container(keyedBy: Keys.self)
        timestamp = try line.member(.timestamp)
        hashIds = try line.member(.hashIds)
        if hashIds != nil {
            inputLength = try line.member(.inputLength)
            outputLength = try line.member(.outputLength)
            return
        }
        created = try line.member(.created)
        event = try line.member(.event)
        obj = try line.member(.obj)
        body = try line.member(.body)
        usage = try line.member(.usage)
        prompt = try Prompt.member(of: line, messages: .messages, prompt: .prompt)
    }

    /// The request of a batch file's line.
    struct Body: Decodable {
        var prompt: Prompt?

        private enum Keys: String, CodingKey { case messages, prompt }

        init(from decoder: any Decoder) throws {
            prompt = try Prompt.member(
                of: decoder.container(keyedBy: Keys.self), messages: .messages, prompt: .prompt)
        }
    }

    struct Usage: Decodable {
        var completionTokens: Int?

        private enum CodingKeys: String, CodingKey { case completionTokens = "completion_tokens" }
    }

    struct SGLangRequest: Decodable {
        var text: Prompt?
        var inputIds: Prompt?

        private enum CodingKeys: String, CodingKey {
            case text
            case inputIds = "input_ids"
        }
    }
}

extension KeyedDecodingContainer {
    /// A member that may be missing. A number that its type can't hold is an error of the decoder's own, which does not say where it
    /// stands.
    fileprivate func member<Value: Decodable>(_ key: Key) throws -> Value? {
        do { return try decodeIfPresent(Value.self, forKey: key) } catch {
            if error is DecodingError || error is LineError { throw error }
            throw LineError(key.stringValue, "has a number that is out of range")
        }
    }
}

/// What was asked, as tokens or as text.
enum Prompt: Decodable {
    case tokens([UInt32])
    case text(String)

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if let text = try? value.decode(String.self) {
            self = .text(text)
        } else {
            self = .tokens(try value.decode([UInt32].self))
        }
    }

    static func member<Key: CodingKey>(
        of line: KeyedDecodingContainer<Key>, messages: Key, prompt: Key
    ) throws -> Prompt? {
        if let messages = try line.member(messages) as [AnyText]? {
            // What a template puts between messages is the same every time.
            return .text(messages.map(\.text).joined(separator: "\n"))
        }
        return try line.member(prompt)
    }
}

/// When a request came.
enum Time: Decodable {
    case number(Double)
    case text(String)

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if let number = try? value.decode(Double.self) {
            self = .number(number)
        } else {
            self = .text(try value.decode(String.self))
        }
    }

    /// Since 1970, or whatever the trace counts from. Of seconds, which reach 10¹¹ in the year 5138 only, or of milliseconds.
    var milliseconds: Double? {
        switch self {
        case .number(let number): number.magnitude < 1e11 ? number * 1000 : number
        case .text(let text): CalendarTime(text)?.milliseconds
        }
    }
}

/// Any JSON value as text that is the same for equal values: members in the order of their names.
struct AnyText: Decodable {
    let text: String

    private struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    init(from decoder: any Decoder) throws {
        if let object = try? decoder.container(keyedBy: Name.self) {
            let names = object.allKeys.map(\.stringValue).sorted()
            text = try names.map { name in
                "\(name): \(try object.decode(AnyText.self, forKey: Name(stringValue: name)).text)"
            }.joined(separator: "\n")
        } else if let array = try? decoder.singleValueContainer().decode([AnyText].self) {
            text = array.map(\.text).joined(separator: "\n")
        } else {
            let value = try decoder.singleValueContainer()
            if value.decodeNil() {
                text = ""
            } else if let string = try? value.decode(String.self) {
                text = string
            } else if let flag = try? value.decode(Bool.self) {
                text = "\(flag)"
            } else {
                text = "\(try value.decode(Double.self))"
            }
        }
    }
}
