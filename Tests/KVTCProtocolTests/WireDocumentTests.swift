import Foundation
import KVTCProtocol
import TestSupport
import Testing

/// WireProtocol.md names the fields of every message: the same ones, in the same order, of the same types.
@Suite struct WireDocumentTests {
    /// A field as the document has it; lists of keys, entries and the like need no name there.
    private struct Documented: Equatable, CustomStringConvertible {
        var type: String
        var name: String?

        var description: String { name.map { "\(type) \($0)" } ?? type }

        /// `u32 session, u8 pin (0 keep, 1 pin), list<key>`.
        static func fields(_ text: Substring) -> [Documented] {
            text.replacing(/\([^)]*\)/, with: "").split(separator: ",").map { field in
                let words = field.split(whereSeparator: \.isWhitespace)
                return Documented(type: String(words[0]), name: words.count > 1 ? String(words[1]) : nil)
            }
        }
    }

    private static let text = try! String(
        contentsOfFile: testFile("../Sources/KVTCProtocol/KVTCProtocol.docc/WireProtocol.md"), encoding: .utf8)

    private static func section(_ opcode: Opcode) throws -> Substring {
        let name = "\(opcode)".replacing(/[A-Z]/) { "_" + $0.output }.uppercased()
        let begin = try #require(text.range(of: "### \(opcode.rawValue) \(name)\n"), "no section \(name)")
        return text[begin.upperBound...].split(separator: "\n## ")[0].split(separator: "\n### ")[0]
    }

    private func expect(_ type: any WireMessage.Type, _ documented: [Documented]) {
        expect(type.fields, documented, "\(type)")
    }

    private func expect(_ fields: [WireField], _ documented: [Documented], _ what: String) {
        let have = zip(fields, documented).map { field, documented in
            Documented(
                type: field.type,
                name: documented.name.map { _ in String(field.name.split(separator: ".").last!) })
        }
        #expect(fields.count == documented.count && have == documented, "\(what)")
    }

    @Test(arguments: Opcode.allCases) func everyMessageIsDocumented(opcode: Opcode) throws {
        let section = try Self.section(opcode)
        let sides = section.split(separator: "→", maxSplits: 1)
        try #require(sides.count == 2)
        let (requests, replies) = opcode.forms
        // What a request may have at its end stands in code of its own.
        var form: [Documented] = []
        var spans = sides[0].matches(of: /`([^`]*)`/).map { Documented.fields($0.1) }
        if spans.isEmpty { spans = [[]] }
        #expect(spans.count == requests.count)
        for (request, span) in zip(requests, spans) {
            form += span
            expect(request, form)
        }
        let reply = sides[1].firstMatch(of: /^\s*empty/) == nil ? sides[1].firstMatch(of: /`([^`]*)`/) : nil
        expect(try #require(replies.last), reply.map { Documented.fields($0.1) } ?? [])
        if replies.count > 1 {
            expect(replies[0], Documented.fields(try #require(section.firstMatch(of: /A part is\s`([^`]*)`/)).1))
        }
    }

    @Test func partsOfMessagesAreDocumented() throws {
        func group(_ message: any WireMessage.Type, _ name: String) throws -> [WireField] {
            try #require(message.fields.first { $0.name == name }).fields
        }
        let open = try Self.section(.openSession)
        let geometry = try group(OpenSessionRequest.self, "geometry")
        expect(geometry, Documented.fields(try #require(open.firstMatch(of: /`geometry` is `([^`]*)`/)).1), "geometry")
        try expectTable("`tensor`, 14 bytes:", in: open, geometry[0].fields)
        try expectTable("`policy`:", in: open, try group(OpenSessionRequest.self, "policy"))
        let layout = try #require(open.firstMatch(of: /`layout`, 4 bytes: ([^\n]*\n)*?\n/)).0
        expect(
            try group(OpenSessionRequest.self, "layout"),
            layout.matches(of: /`(u8 \w+)`/).flatMap { Documented.fields($0.1) }, "layout")
        for (opcode, message) in [(Opcode.push, PushRequest.self as any WireMessage.Type), (.pull, PullRequest.self)] {
            let fields = try group(message, "entries")
            let entry = try #require(try Self.section(opcode).firstMatch(of: /`entry`, (\d+) bytes: `([^`]*)`/))
            expect(fields, Documented.fields(entry.2), "entry of \(opcode)")
            #expect(Int(entry.1) == fields.compactMap(Self.bytes).reduce(0, +))
        }
        let range = try group(SetPolicyReply.self, "alreadyCoded")
        let documented = try #require(Self.text.firstMatch(of: /\| `range` \| `(u32)` (begin), `(u32)` (end)/))
        expect(
            range,
            [
                Documented(type: String(documented.1), name: String(documented.2)),
                Documented(type: String(documented.3), name: String(documented.4)),
            ], "range")
    }

    /// Rows of offset, type and name.
    private func expectTable(_ title: String, in section: Substring, _ fields: [WireField]) throws {
        let begin = try #require(section.range(of: title + "\n\n"))
        let table = section[begin.upperBound...].prefix { _ in true }.split(separator: "\n\n")[0]
        let rows = table.matches(of: /\| (\d+|then) \| `([^`]*)` (\w+) \|/)
        expect(fields, rows.map { Documented(type: String($0.2), name: String($0.3)) }, title)
        var offset: Int? = 0
        for (row, field) in zip(rows, fields) {
            #expect(row.1 == offset.map(String.init) ?? "then", "\(field.name)")
            offset = if let begin = offset, let bytes = Self.bytes(field) { begin + bytes } else { nil }
        }
    }

    /// Nil for what has no fixed size.
    private static func bytes(_ field: WireField) -> Int? {
        ["u8": 1, "u16": 2, "u32": 4, "u64": 8, "f32": 4, "key": 32][field.type]
    }
}
