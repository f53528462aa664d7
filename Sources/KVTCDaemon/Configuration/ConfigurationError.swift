import Glibc
import KVTCProtocol

/// Where a value of the configuration comes from.
public enum ConfigurationOrigin: Sendable, Hashable {
    /// Not set: the default, and what it follows, such as an environment variable or a control group's limit.
    case standard(follows: String?)
    /// A place in a file, line and column from 1, and what stands there.
    case file(String, line: Int, column: Int, text: String)
    /// An option of the command line and what it was given.
    case option(String, text: String)

    /// `default`, `file` or `option`.
    public var kind: String {
        switch self {
        case .standard: "default"
        case .file: "file"
        case .option: "option"
        }
    }

    /// `file:line`, `--option` or `default`, with what the default follows.
    public var place: String {
        switch self {
        case .standard(nil): "default"
        case .standard(let follows?): "default, from \(follows)"
        case .file(let file, let line, _, _): line > 0 ? "\(file):\(line)" : file
        case .option(let name, _): name
        }
    }
}

/// What is wrong with a configuration, or what its administrator should know, and where.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The dotted key at fault; empty for a file that cannot be read at all.
    public var key: String
    /// What is wrong, and what is allowed.
    public var message: String
    /// Where the value comes from.
    public var origin: ConfigurationOrigin
    /// The value as TOML where it stands nowhere, for a default.
    var value = ""
    /// The element of a list that it is about.
    var element: Int?

    /// An error about a key.
    public init(key: String, _ message: String, origin: ConfigurationOrigin = .standard(follows: nil)) {
        (self.key, self.message, self.origin) = (key, message, origin)
    }

    /// `file:line:column: key = value: message`, as compilers write it; `--option value: message` for an option.
    public var description: String {
        let parts =
            switch origin {
            case .file(let file, let line, let column, let text):
                [line > 0 ? "\(file):\(line):\(column)" : file, assignment(text), message]
            case .option(let name, let text): ["\(name) \(text.isEmpty ? "\"\"" : text)", message]
            case .standard(let follows):
                [assignment(value) + (follows.map { " (default, from \($0))" } ?? ""), message]
            }
        return parts.filter { !$0.isEmpty }.map(ConfigurationError.shown).joined(separator: ": ")
    }

    private func assignment(_ value: String) -> String {
        let key = ConfigurationSetting.spelled(key)
        return value.isEmpty ? key : "\(key) = \(value)"
    }

    /// What people may be shown; a long value needs no more than its beginning.
    private static func shown(_ text: String) -> String {
        let limit = 400
        return (text.count > limit ? text.prefix(limit) + "…" : text[...]).escapedForDisplay
    }
}

/// Everything that is wrong with a configuration: first the file's errors in the order of its lines, then the options'.
public struct ConfigurationErrors: Error, Sendable, CustomStringConvertible {
    /// The errors in order; never empty.
    public var all: [ConfigurationError]

    /// Puts the errors in order.
    public init(_ errors: [ConfigurationError]) {
        func rank(_ error: ConfigurationError) -> [Int] {
            switch error.origin {
            case .file(_, let line, let column, _): [0, line, column]
            case .option: [1]
            case .standard: [2]
            }
        }
        // Equal ones stay in their order: sort is stable.
        all = errors.sorted { rank($0).lexicographicallyPrecedes(rank($1)) }
    }

    /// The exit status of a program that cannot start with them, as in sysexits.h: usage where an option is at fault, else
    /// configuration.
    public var exitCode: Int32 {
        all.contains { if case .option = $0.origin { true } else { false } } ? EX_USAGE : EX_CONFIG
    }

    /// One error a line.
    public var description: String { all.map(\.description).joined(separator: "\n") }
}
