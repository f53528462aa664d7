import TOMLKit

/// Reads a configuration from TOML: unknown keys, wrong types and values out of range are errors with their place.
public enum ConfigurationFile {
    /// The names of log levels, from chatty to quiet.
    public static let levels = ConfigurationSetting.levels

    /// All keys, dotted.
    public static let keys: [String] = ConfigurationSetting.all.keys.sorted()

    /// Applies the text to a configuration. `file` is only for error messages.
    public static func apply(
        _ text: String, file: String, to configuration: inout DaemonConfiguration
    ) throws(ConfigurationError) {
        let table: TOMLTable
        do { table = try TOMLTable(string: text) } catch let error as TOMLParseError {
            var failure = ConfigurationError(key: "", error.description)
            (failure.file, failure.line, failure.column) = (file, error.source.begin.line, error.source.begin.column)
            throw failure
        } catch {
            var failure = ConfigurationError(key: "", "\(error)")
            failure.file = file
            throw failure
        }
        do throws(ConfigurationError) { try walk(table, prefix: "", &configuration) } catch {
            var failure = error
            failure.file = file
            (failure.line, failure.column) = locate(error.key, in: text)
            throw failure
        }
    }

    private static func walk(
        _ table: TOMLTable, prefix: String, _ configuration: inout DaemonConfiguration
    ) throws(ConfigurationError) {
        for name in table.keys.sorted() {
            let key = prefix + name
            guard let value = table[name] else { continue }
            if let apply = ConfigurationSetting.apply(key) {
                try apply(key, value, &configuration)
            } else if key == "tenants" || ConfigurationSetting.all.keys.contains(where: { $0.hasPrefix(key + ".") }) {
                guard let inner = value.table else { throw ConfigurationError(key: key, "expected a table") }
                try walk(inner, prefix: key + ".", &configuration)
            } else {
                let near = ConfigurationSetting.nearest(to: key).map { "; did you mean \($0)?" } ?? ""
                throw ConfigurationError(key: key, "unknown key\(near)")
            }
        }
    }

    /// Line and column, from 1, of where a dotted key stands; the parser keeps no positions of valid keys. Headers,
    /// dotted keys and the first level of inline tables are understood; anything else gives the closest parent.
    static func locate(_ key: String, in text: String) -> (line: Int, column: Int) {
        let wanted = key.split(separator: ".").map(String.init)
        var section: [String] = []
        var best = (length: 0, line: 1, column: 1)
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let indent = line.prefix { $0 == " " || $0 == "\t" }.count
            let content = line.dropFirst(indent)
            guard let first = content.first, first != "#" else { continue }
            let path: [String]
            if first == "[" {
                section = parts(content.drop { $0 == "[" }.prefix { $0 != "]" })
                path = section
            } else if let equals = content.firstIndex(of: "=") {
                path = section + parts(content[..<equals])
            } else {
                continue
            }
            let common = zip(wanted, path).prefix { $0 == $1 }.count
            guard common == path.count, common > best.length else { continue }
            best = (common, index + 1, indent + 1)
            // An inline table: the key itself stands further right.
            if common < wanted.count, let inner = content.range(of: wanted[common]) {
                best = (common, index + 1, indent + 1 + content.distance(from: content.startIndex, to: inner))
            }
        }
        return (best.line, best.column)
    }

    private static func parts(_ text: Substring) -> [String] {
        text.split(separator: ".").map { part in
            String(part.drop { " \t\"'".contains($0) }.reversed().drop { " \t\"'".contains($0) }.reversed())
        }
    }
}

extension Substring {
    fileprivate func range(of needle: String) -> Index? {
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(needle) { return at }
            at = index(after: at)
        }
        return nil
    }
}
