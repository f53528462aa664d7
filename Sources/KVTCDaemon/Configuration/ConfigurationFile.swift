import Glibc
import KVTCSystem

/// Reads a configuration from TOML. Whatever is wrong comes back with its place, all of a file at once; where the text
/// is not UTF-8 or no TOML, nothing else can be known of it.
public enum ConfigurationFile {
    /// Bytes of the largest file that is read.
    static let limit = 1 << 20

    /// Applies a file to a configuration and returns what is wrong.
    public static func read(_ path: String, into configuration: inout DaemonConfiguration) -> [ConfigurationError] {
        do throws(ConfigurationError) {
            return apply(try contents(path), file: path, to: &configuration)
        } catch {
            return [error]
        }
    }

    private static func contents(_ path: String) throws(ConfigurationError) -> [UInt8] {
        func failure(_ reason: String) -> ConfigurationError {
            ConfigurationError(
                key: "", "cannot be read: \(reason)", origin: .file(path, line: 0, column: 0, text: ""))
        }
        // A pipe without a writer must not keep the daemon from starting.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { throw failure(String(cString: strerror(errno))) }
        defer { close(descriptor) }
        var info = stat()
        guard fstat(descriptor, &info) == 0 else { throw failure(String(cString: strerror(errno))) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw failure(info.st_mode & S_IFMT == S_IFDIR ? "it is a directory" : "it is no regular file")
        }
        var bytes = [UInt8](repeating: 0, count: limit + 1)
        var count = 0
        while count < bytes.count {
            let more = bytes.withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress! + count, $0.count - count, off_t(count))
            }
            if more < 0, errno == EINTR { continue }
            guard more >= 0 else { throw failure(String(cString: strerror(errno))) }
            guard more > 0 else { break }
            count += more
        }
        guard count <= limit else { throw failure("it is larger than \(ByteSize.text(limit))") }
        return Array(bytes[..<count])
    }

    /// Applies a text to a configuration and returns what is wrong. `file` is only for the errors.
    public static func apply(
        _ bytes: [UInt8], file: String, to configuration: inout DaemonConfiguration
    ) -> [ConfigurationError] {
        let isMarked = bytes.starts(with: [0xEF, 0xBB, 0xBF])
        let bytes = isMarked ? Array(bytes[3...]) : bytes
        let problems = encodingProblems(bytes, file: file)
        guard problems.isEmpty else { return problems }
        let (entries, failures) = TOMLReader.read(bytes)
        var errors = failures.map { failure in
            // Without a key where nothing behind it was read.
            let entry = failure.isSyntax ? nil : entries.last { $0.place == failure.place }
            let (line, column) = (failure.place.line, failure.place.column)
            return ConfigurationError(
                key: entry?.path.joined(separator: ".") ?? "", failure.message,
                origin: .file(file, line: line, column: column, text: entry?.text ?? ""))
        }
        // What is below a table that is no good, or is there twice, is not looked at: one mistake is one error.
        let twice = Set(failures.map(\.place))
        var refused: [[String]] = []
        for entry in entries where !refused.contains(where: entry.path.starts) && !twice.contains(entry.place) {
            do throws(ConfigurationErrors) {
                try apply(entry, file, &configuration)
            } catch {
                errors += error.all.map { error in
                    var error = error
                    let place = error.element.map { entry.elements[$0] } ?? entry.place
                    error.origin = .file(file, line: place.line, column: place.column, text: entry.text)
                    return error
                }
                refused.append(entry.path)
            }
        }
        return ConfigurationErrors(errors).all
    }

    /// Lines that are not UTF-8 or have characters that TOML forbids, which includes NUL, where C ends its texts.
    private static func encodingProblems(_ bytes: [UInt8], file: String) -> [ConfigurationError] {
        var problems: [ConfigurationError] = []
        var (line, column, at) = (1, 1, 0)
        var parser = Unicode.UTF8.ForwardParser()
        var input = bytes.makeIterator()
        // A file that is no text at all need not be shown to its end.
        while problems.count < 20 {
            var problem: String?
            let result = parser.parseScalar(from: &input)
            switch result {
            case .emptyInput: return problems
            case .error:
                problem =
                    "the byte 0x\(String(bytes[at], radix: 16, uppercase: true)) is not UTF-8; save the file as UTF-8"
            case .valid(let encoded):
                let scalar = Unicode.UTF8.decode(encoded).value
                let isLineEnd = scalar == 0x0A || (scalar == 0x0D && bytes[(at + 1)...].first == 0x0A)
                if !isLineEnd, scalar != 0x09, scalar < 0x20 || scalar == 0x7F {
                    problem =
                        scalar == 0x0D
                        ? "a carriage return without a line feed; save the file with line ends of Unix or DOS"
                        : "the control character U+00\(scalar < 0x10 ? "0" : "")\(String(scalar, radix: 16, uppercase: true)) is not allowed"
                }
            }
            if let problem, problems.last?.line != line {
                problems.append(
                    ConfigurationError(
                        key: "", problem, origin: .file(file, line: line, column: column, text: "")))
            }
            if case .valid(let encoded) = result, encoded.first == 0x0A { (line, column) = (line + 1, 0) }
            column += 1
            at += result.length
        }
        return problems
    }

    private static func apply(
        _ entry: TOMLReader.Entry, _ file: String, _ configuration: inout DaemonConfiguration
    ) throws(ConfigurationErrors) {
        let key = entry.path.joined(separator: ".")
        func refusal(_ key: String, _ message: String) -> ConfigurationErrors {
            ConfigurationErrors([ConfigurationError(key: key, message)])
        }
        // A point inside quotes is part of a name: "ram.budget" would be a key of its own. Only free names may be so.
        if let part = entry.path.suffix(entry.ownParts).first(where: { $0.contains(".") }),
            ConfigurationSetting.tablesOfNames[entry.path[0]] == nil
        {
            throw refusal("\"\(part)\"", "in quotes this is one name with a point in it; write \(key) without quotes")
        }
        if let setting = ConfigurationSetting.named(key) {
            guard entry.value != setting.absent else { return }
            try setting.apply(entry.value, to: &configuration)
            configuration.origins[key] = .file(
                file, line: entry.place.line, column: entry.place.column, text: entry.text)
        } else if !ConfigurationSetting.isTable(key) {
            let spelled = entry.path.map(ConfigurationSetting.spelled(name:)).joined(separator: ".")
            throw refusal(spelled, "unknown key" + suggestion(key))
        } else if entry.value != .other("a table") {
            throw refusal(key, "is \(entry.value.kind); expected a table")
        }
    }

    /// Known keys that were probably meant: the same name in another table, or nearly the same spelling, whatever the case.
    private static func suggestion(_ key: String) -> String {
        let key = key.lowercased()
        let keys = ConfigurationSetting.all.map(\.key)
        let last = key.split(separator: ".").last ?? ""
        var near = keys.contains(key) ? [key] : keys.filter { $0.hasSuffix("." + last) }
        if near.isEmpty {
            let tables = Set(keys.map { String($0.prefix { $0 != "." }) } + ConfigurationSetting.tablesOfNames.keys)
            let candidates = (keys + tables).map { ($0, distance(Array(key), Array($0))) }
            // Of a short word nothing would be left by that many edits.
            let most = min(3, key.count / 2)
            near = candidates.filter { $0.1 <= most }.min { ($0.1, $0.0) < ($1.1, $1.0) }.map { [$0.0] } ?? []
        }
        return near.isEmpty ? "" : "; did you mean \(near.joined(separator: " or "))?"
    }

    /// The edits between two words (Levenshtein).
    private static func distance(_ a: [Character], _ b: [Character]) -> Int {
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let next = min(row[j] + 1, row[j + 1] + 1, diagonal + (x == y ? 0 : 1))
                diagonal = row[j + 1]
                row[j + 1] = next
            }
        }
        return row[b.count]
    }
}

extension Unicode.ParseResult where T == Unicode.UTF8.EncodedScalar {
    fileprivate var length: Int {
        switch self {
        case .valid(let encoded): encoded.count
        case .error(let length): length
        case .emptyInput: 0
        }
    }
}

extension ConfigurationError {
    fileprivate var line: Int? { if case .file(_, let line, _, _) = origin { line } else { nil } }
}
