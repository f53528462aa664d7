/// Reads TOML 1.0 (toml.io/en/v1.0.0) with the place of every key and the text of every value, which errors about
/// them have to show; no number of decimals and no date is kept, since no setting takes one.
struct TOMLReader {
    /// A key with its value, or the header of a table.
    struct Entry {
        /// The whole path, unquoted.
        var path: [String]
        /// How many parts of the path stand here; the others are the header's above it.
        var ownParts: Int
        var place: Place
        /// The value; for tables only what they are.
        var value = ConfigurationValue.other("a table")
        /// The value as it is written; empty for headers.
        var text = ""
        /// Where the elements of a list begin.
        var elements: [Place] = []
    }

    /// Line and column from 1, in characters.
    struct Place: Hashable {
        var line = 1
        var column = 1
    }

    /// What is wrong with the text.
    struct Failure: Error {
        var place: Place
        var message: String
        /// Whether the text could be read on.
        var isSyntax = true
    }

    private enum Definition {
        /// A value, a list or an inline table: complete where it stands.
        case value
        /// The table of a header.
        case header
        /// The table of a header in double brackets, which may come again.
        case listed
        /// A table that a header has above its own, which may get its own later.
        case above
        /// A table of dotted keys.
        case dotted
    }

    /// More is no configuration, and would be read with a stack as deep.
    private static let depth = 16

    private let bytes: [UInt8]
    private var at = 0
    private(set) var place = Place()
    private var entries: [Entry] = []
    private var failures: [Failure] = []
    private var defined: [[String]: (as: Definition, line: Int)] = [:]
    /// Where the elements of the list begin that was read last.
    private var elements: [Place] = []

    /// Keys and values from top to bottom, and what is wrong: keys and tables that are there twice, and where the text is no
    /// TOML, behind which nothing is read. The text is UTF-8 without control characters but tabs and line ends.
    static func read(_ text: [UInt8]) -> (entries: [Entry], failures: [Failure]) {
        var reader = TOMLReader(bytes: text)
        do throws(Failure) { try reader.document() } catch { reader.failures.append(error) }
        return (reader.entries, reader.failures)
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    // MARK: - Characters

    var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    func next(is text: StaticString) -> Bool {
        bytes[at...].starts(with: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    func text(from start: Int) -> String { String(decoding: bytes[start..<at], as: UTF8.self) }

    var offset: Int { at }

    mutating func skip(_ count: Int = 1) {
        for _ in 0..<count where at < bytes.count {
            if bytes[at] == UInt8(ascii: "\n") {
                place = Place(line: place.line + 1, column: 1)
            } else if bytes[at] & 0xC0 != 0x80 {
                place.column += 1
            }
            at += 1
        }
    }

    mutating func skip(while condition: (UInt8) -> Bool) { while let byte = next, condition(byte) { skip() } }

    private mutating func skipSpace() { skip { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") } }

    /// Space, line ends and comments.
    private mutating func skipBlank() {
        while true {
            skip { " \t\r\n".utf8.contains($0) }
            guard next == UInt8(ascii: "#") else { return }
            skip { $0 != UInt8(ascii: "\n") }
        }
    }

    /// What stands here instead of what should.
    func expected(_ what: String) -> Failure {
        let rest = bytes[at...].prefix { !"\r\n".utf8.contains($0) }
        let found = String(decoding: rest, as: UTF8.self).first.map { "'\($0)'" }
        let end = at == bytes.count ? "the end of the file" : "the end of the line"
        return Failure(place: place, message: "expected \(what), found \(found ?? end)")
    }

    // MARK: - Lines

    private mutating func document() throws(Failure) {
        var section: [String] = []
        while true {
            skipBlank()
            guard let byte = next else { return }
            if byte == UInt8(ascii: "[") {
                section = try header()
            } else {
                try assignment(below: section, depth: 0)
            }
            skipSpace()
            guard next == nil || "#\r\n".utf8.contains(next!) else { throw expected("the end of the line") }
        }
    }

    /// `[table]`, or `[[table]]`, whose elements are kept apart by their number.
    private mutating func header() throws(Failure) -> [String] {
        var entry = Entry(path: [], ownParts: 0, place: place)
        let isList = next(is: "[[")
        skip(isList ? 2 : 1)
        entry.path = try key()
        entry.ownParts = entry.path.count
        guard isList ? next(is: "]]") : next(is: "]") else { throw expected(isList ? "]]" : "]") }
        skip(isList ? 2 : 1)
        if isList {
            entry.value = .list([])
            for path in defined.keys where path.count > entry.path.count && path.starts(with: entry.path) {
                defined[path] = nil
            }
        }
        define(entry, above: 0, upper: .above, as: isList ? .listed : .header)
        entries.append(entry)
        return entry.path
    }

    /// `key = value`.
    private mutating func assignment(below parent: [String], depth: Int) throws(Failure) {
        var entry = Entry(path: [], ownParts: 0, place: place)
        let own = try key()
        (entry.path, entry.ownParts) = (parent + own, own.count)
        guard next == UInt8(ascii: "=") else { throw expected("= or a point") }
        skip()
        skipSpace()
        define(entry, above: parent.count, upper: .dotted, as: .value)
        let (start, index) = (at, entries.count)
        entries.append(entry)
        do throws(Failure) {
            let value = try value(at: entry.path, depth: depth)
            (entries[index].value, entries[index].text) = (value, text(from: start))
            if case .list = value { entries[index].elements = elements }
        } catch {
            entries.remove(at: index)
            throw error
        }
    }

    /// Notes what a path is, and that no path is two things. The parts beyond `above` and before the last are tables.
    private mutating func define(_ entry: Entry, above: Int, upper: Definition, as definition: Definition) {
        func refuse(_ path: [String], _ line: Int) {
            let name = path == entry.path ? "" : path.joined(separator: ".") + " "
            failures.append(
                Failure(place: entry.place, message: "\(name)is there already, in line \(line)", isSyntax: false))
        }
        for count in stride(from: above + 1, to: entry.path.count, by: 1) {
            let path = Array(entry.path[..<count])
            guard let known = defined[path] else {
                defined[path] = (upper, entry.place.line)
                continue
            }
            // A header may go below any table; dotted keys may not add to one that has a header.
            let isOpen = upper == .above ? known.as != .value : known.as == .dotted
            guard isOpen else { return refuse(path, known.line) }
        }
        if let known = defined[entry.path] {
            guard (definition, known.as) == (.header, .above) || (definition, known.as) == (.listed, .listed) else {
                return refuse(entry.path, known.line)
            }
        }
        defined[entry.path] = (definition, entry.place.line)
    }

    /// Dotted parts, and the space around them.
    private mutating func key() throws(Failure) -> [String] {
        var parts: [String] = []
        repeat {
            if !parts.isEmpty { skip() }
            skipSpace()
            if next == UInt8(ascii: "\"") || next == UInt8(ascii: "'") {
                guard !next(is: "\"\"\""), !next(is: "'''") else { throw expected("a key in one line") }
                parts.append(try string())
            } else {
                let start = at
                skip(while: TOMLReader.isBare)
                guard at > start else { throw expected("a key") }
                parts.append(text(from: start))
            }
            guard parts.count <= TOMLReader.depth else { throw expected("at most \(TOMLReader.depth) parts of a key") }
            skipSpace()
        } while next == UInt8(ascii: ".")
        return parts
    }

    static func isBare(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"): true
        default: false
        }
    }

    // MARK: - Values

    /// A value. The pairs of an inline table at `path` become entries; those in a list are at nil, and none.
    private mutating func value(at path: [String]?, depth: Int) throws(Failure) -> ConfigurationValue {
        guard depth < TOMLReader.depth else { throw expected("at most \(TOMLReader.depth) values in one another") }
        switch next {
        case UInt8(ascii: "\""), UInt8(ascii: "'"): return .text(try string())
        case UInt8(ascii: "["): return .list(try list(depth: depth))
        case UInt8(ascii: "{"):
            try inlineTable(at: path, depth: depth)
            return .other("a table")
        default: return try scalar()
        }
    }

    private mutating func list(depth: Int) throws(Failure) -> [ConfigurationValue] {
        var values: [ConfigurationValue] = []
        var places: [Place] = []
        skip()
        while true {
            skipBlank()
            if next == UInt8(ascii: "]") { break }
            places.append(place)
            values.append(try value(at: nil, depth: depth + 1))
            skipBlank()
            guard next == UInt8(ascii: ",") else { break }
            skip()
        }
        guard next == UInt8(ascii: "]") else { throw expected("a comma or ]") }
        skip()
        elements = places
        return values
    }

    private mutating func inlineTable(at path: [String]?, depth: Int) throws(Failure) {
        // What is in a list has no path of its own: it is read for its form only.
        let (entriesBefore, failuresBefore, definedBefore) = (entries, failures, defined)
        skip()
        skipSpace()
        while next != UInt8(ascii: "}") {
            try assignment(below: path ?? [], depth: depth + 1)
            skipSpace()
            guard next == UInt8(ascii: ",") else { break }
            skip()
            skipSpace()
            if next == UInt8(ascii: "}") { throw expected("a key") }
        }
        guard next == UInt8(ascii: "}") else { throw expected("a comma or }") }
        skip()
        if path == nil { (entries, failures, defined) = (entriesBefore, failuresBefore, definedBefore) }
    }
}
