import Foundation
import KVTCDaemon
import KVTCSystem
import TestSupport
import Testing

/// What a file says, and what is wrong with it: each with its place, the value and what is allowed.
@Suite struct ConfigurationFileTests {
    private func read(_ bytes: some Sequence<UInt8>) -> (DaemonConfiguration, [String]) {
        var configuration = DaemonConfiguration(isRoot: true)
        let errors = ConfigurationFile.apply(Array(bytes), file: "kvtcd.toml", to: &configuration)
        return (configuration, errors.map(\.description))
    }

    private func errors(_ text: String) -> [String] { read(text.utf8).1 }

    @Test func valuesArrive() {
        let (configuration, errors) = read(
            """
            socket = { path = "/x/s", mode = "0600" } # both
            ram.budget = "1.5GiB"
            disk . "budget" = 1_048_576
            [ workers ]
            threads = 0x3
            [limits]
            'hello_s' = 7
            """.utf8)
        #expect(errors == [])
        #expect(configuration.socketPath == "/x/s")
        #expect(configuration.socketMode == 0o600)
        #expect(configuration.ramBudget == 3 << 29)
        #expect(configuration.diskBudget == 1 << 20)
        #expect(configuration.workers == 3)
        #expect(configuration.limits.helloSeconds == 7)
        let places = configuration.settings.map(\.origin.place).filter { $0.hasPrefix("kvtcd.toml") }
        #expect(
            places == ["kvtcd.toml:1", "kvtcd.toml:1", "kvtcd.toml:2", "kvtcd.toml:3", "kvtcd.toml:5", "kvtcd.toml:7"])
    }

    private static let size = "expected bytes as a number, or text with B, KiB, MiB, GiB or TiB such as \"4GiB\""
    private static let budget = size + ", from 1MiB to 1024TiB"

    private static let mistakes: [(String, String)] = [
        ("[ram]\nbudgets = 1\n", "2:1: ram.budgets = 1: unknown key; did you mean ram.budget?"),
        ("\n\n  [rom]\nbudget = 1\n", "3:3: rom: unknown key; did you mean ram?"),
        ("nonsense = true\n", "1:1: nonsense = true: unknown key"),
        ("budget = 1\n", "1:1: budget = 1: unknown key; did you mean ram.budget or disk.budget?"),
        ("[limit]\n", "1:1: limit: unknown key; did you mean limits?"),
        ("[ram]\nsegment = 1", "2:1: ram.segment = 1: unknown key; did you mean disk.segment?"),
        ("socket = { path = \"/s\", wrong = 1 }", "1:25: socket.wrong = 1: unknown key"),
        ("ram.budget.x = 1", "1:1: ram.budget.x = 1: unknown key; did you mean ram.budget?"),
        ("ram = 5", "1:1: ram = 5: is a number; expected a table"),
        ("[[ram]]", "1:1: ram: is a list; expected a table"),
        ("[ram.budget]", "1:1: ram.budget: is a table; \(budget)"),
        (
            "[disk]\n# a comment\n   directory = 5",
            "3:4: disk.directory = 5: is a number; expected a path as text, or \"\" for RAM only"
        ),
        ("socket.path = \"\"", "1:1: socket.path = \"\": is empty; expected a path as text"),
        ("socket.path = '~/s'", "1:1: socket.path = '~/s': ~ is not expanded here; expected a path as text"),
        ("[ram]\nbudget = true", "2:1: ram.budget = true: is true or false; \(budget)"),
        ("[ram]\nbudget = [1]", "2:1: ram.budget = [1]: is a list; \(budget)"),
        ("[ram]\nbudget = { a = \"}\" } # x", "2:1: ram.budget = { a = \"}\" }: is a table; \(budget)"),
        (
            "[ram]\nbudget = 1979-05-27 07:32:00",
            "2:1: ram.budget = 1979-05-27 07:32:00: is a date or a time; \(budget)"
        ),
        ("[ram]\nbudget = \"16GB\"", "2:1: ram.budget = \"16GB\": there is no unit GB; \(budget)"),
        ("[ram]\nbudget = \"1gib\"", "2:1: ram.budget = \"1gib\": there is no unit gib (GiB is meant?); \(budget)"),
        ("[ram]\nbudget = \"50%\"", "2:1: ram.budget = \"50%\": there is no unit %; \(budget)"),
        ("[ram]\nbudget = \"\"", "2:1: ram.budget = \"\": is empty; \(budget)"),
        ("[ram]\nbudget = \"１GiB\"", "2:1: ram.budget = \"１GiB\": does not begin with digits 0 to 9; \(budget)"),
        ("[ram]\nbudget = \"1.2.3GiB\"", "2:1: ram.budget = \"1.2.3GiB\": 1.2.3 is no number; \(budget)"),
        ("[ram]\nbudget = \"99999999TiB\"", "2:1: ram.budget = \"99999999TiB\": out of range; \(budget)"),
        ("ram.budget = -1", "1:1: ram.budget = -1: out of range; \(budget)"),
        ("ram.budget = 0", "1:1: ram.budget = 0: out of range; \(budget)"),
        (
            "workers.threads = 1.5",
            "1:1: workers.threads = 1.5: is a number with a point; expected a whole number from 0 to 1024"
        ),
        ("workers.threads = -1", "1:1: workers.threads = -1: out of range; expected a whole number from 0 to 1024"),
        (
            "limits.hello_s = \"5\"",
            "1:1: limits.hello_s = \"5\": is text; expected a whole number of seconds from 1 to 3600"
        ),
        (
            "[socket]\nmode = \"999\"",
            "2:1: socket.mode = \"999\": has other characters than the digits 0 to 7; expected permissions as text of octal digits, such as \"0660\""
        ),
        (
            "[socket]\nmode = \"-7\"",
            "2:1: socket.mode = \"-7\": has other characters than the digits 0 to 7; expected permissions as text of octal digits, such as \"0660\""
        ),
        (
            "[socket]\nmode = \"07777\"",
            "2:1: socket.mode = \"07777\": is more than 0777; expected permissions as text of octal digits, such as \"0660\""
        ),
        ("[RAM]\n", "1:1: RAM: unknown key; did you mean ram?"),
        ("Ram.Budget = 1\n", "1:1: Ram.Budget = 1: unknown key; did you mean ram.budget?"),
        ("[xyz]\n", "1:1: xyz: unknown key"),
        ("ram.\"\" = 1\n", "1:1: ram.\"\" = 1: unknown key; did you mean ram?"),
        (
            "containers.\"\" = '/x'",
            "1:1: containers.\"\" = '/x': the name of a container has 1 to 64 bytes; expected the absolute path of a socket as text"
        ),
        (
            "tenants.\"a b\" = []",
            "1:1: tenants.\"a b\" = []: is empty: at least one user is needed; "
                + "expected a list of names and numbers of users, such as [\"alice\", 1001]"
        ),
        (
            "log.level = \"loud\"",
            "1:1: log.level = \"loud\": unknown; expected one of trace, debug, info, notice, warning, error, critical"
        ),
        (
            "disk.directory = \"a\\u0000b\"",
            "1:1: disk.directory = \"a\\\\u0000b\": has a NUL character; expected a path as text, or \"\" for RAM only"
        ),
        (
            "\"ram.budget\" = 5",
            "1:1: \"ram.budget\" = 5: in quotes this is one name with a point in it; write ram.budget without quotes"
        ),
        (
            "\"ram\\u002ebudget\" = 5",
            "1:1: \"ram.budget\" = 5: in quotes this is one name with a point in it; write ram.budget without quotes"
        ),
        (
            "['ram.budget']",
            "1:1: \"ram.budget\": in quotes this is one name with a point in it; write ram.budget without quotes"
        ),
        ("[ram]\nbudget = = 1\n", "2:10: expected a value, found '='"),
        ("[ram\n", "1:5: expected ], found the end of the line"),
        ("[ram]]", "1:6: expected the end of the line, found ']'"),
        ("[.]", "1:2: expected a key, found '.'"),
        ("[]", "1:2: expected a key, found ']'"),
        ("a", "1:2: expected = or a point, found the end of the file"),
        ("workers.threads =", "1:18: expected a value, found the end of the file"),
        ("workers.threads = [ }", "1:21: expected a value, found '}'"),
        ("workers.threads = [1 2]", "1:22: expected a comma or ], found '2'"),
        ("log = { level = 'info', }", "1:25: expected a key, found '}'"),
        ("workers.threads = 1 b = 2", "1:21: expected the end of the line, found 'b'"),
        ("log.level = \"b\n\"", "1:15: expected the quote that ends the text, found the end of the line"),
        ("log.level = '''b", "1:17: expected the quote that ends the text, found the end of the file"),
        ("log.level = \"\\q\"", "1:14: there is no such escape; write \\\\\\\\ for a backslash"),
        ("log.level = \"\\ud800\"", "1:14: the escape stands for no character"),
        ("log.level = info", "1:13: info is no value; text needs quotes"),
        ("limits.keys = 012", "1:15: 012 is no value; text needs quotes"),
        ("limits.keys = 1__2", "1:15: 1__2 is no value; text needs quotes"),
        ("limits.keys = 99999999999999999999", "1:15: 99999999999999999999 does not fit in 64 bits"),
        ("ram.budget = '2MiB'\nram.budget = 2", "2:1: ram.budget = 2: is there already, in line 1"),
        ("[ram]\n[ram]\n", "2:1: ram: is there already, in line 1"),
        ("ram.budget = '2MiB'\n[ram]", "2:1: ram: is there already, in line 1"),
        ("ram = {}\n[ram]", "2:1: ram: is there already, in line 1"),
        ("ram = { budget = '2MiB' }\nram.budget = 1", "2:1: ram.budget = 1: ram is there already, in line 1"),
        (
            "tenants.a = 5",
            "1:1: tenants.a = 5: is a number; expected a list of names and numbers of users, such as [\"alice\", 1001]"
        ),
        (
            "tenants.a = [[1]]",
            "1:14: tenants.a = [[1]]: [1] is no user; expected a list of names and numbers of users, such as [\"alice\", 1001]"
        ),
    ]

    @Test(arguments: mistakes)
    func mistakesAreShownWithTheirPlace(text: String, message: String) {
        #expect(errors(text) == ["kvtcd.toml:" + message])
    }

    @Test func everyElementOfAListIsJudgedAtItsOwnPlace() {
        let text = "[tenants]\na = [\n  1001, # fine\n  'no such user', -5,\n  1001, [2],\n]\n[admin]\nusers = [true]\n"
        let places = errors(text).map { $0.split(separator: ":")[1...2].joined(separator: ":") }
        #expect(places == ["4:3", "4:19", "5:3", "5:9", "8:10"])
        let users = errors("[admin]\nusers = ['no such user', 4294967296]")
        #expect(users.map { $0.contains("there is no user") } == [true, true])
    }

    // Lines count the same however they end, and a byte order mark is no character of the first.
    @Test(arguments: ["\n", "\r\n"], ["", "\u{FEFF}"])
    func allMistakesOfAFileAreShownInTheOrderOfItsLines(end: String, mark: String) {
        let lines = [
            "'ü' = 1", "[ram]", "budget = \"16GB\" # ü", "text = '''", "ram.budget = 3", "'''", "[socket]",
            "path = \"/s\"", "\"m\\u006fde\" = 5", "[rom]", "a = 1", "b = { c = [1, '}'] }", "[limits]", "keys = 0",
        ]
        let places = errors(mark + lines.joined(separator: end)).map { error in
            error.split(separator: ":")[1...3].joined(separator: ":")
        }
        let shown = end == "\n" ? "\\n" : "\\r\\n"
        let expected = [
            "1:1: \"ü\" = 1", "3:1: ram.budget = \"16GB\"", "4:1: ram.text = '''\(shown)ram.budget = 3\(shown)'''",
            "9:1: socket.mode = 5", "10:1: rom", "14:1: limits.keys = 0",
        ]
        #expect(places == expected)
    }

    private static let noTexts: [([UInt8], [String])] = [
        (
            Array("# \u{fc}\nx = \"".utf8) + [0xFC] + Array("\"\n".utf8),
            ["2:6: the byte 0xFC is not UTF-8; save the file as UTF-8"]
        ),
        ([0xFF, 0xFE, 0x5B, 0x00], ["1:1: the byte 0xFF is not UTF-8; save the file as UTF-8"]),
        (Array("#".utf8) + [0xC3, 0x0A, 0x23, 0xED, 0xA0, 0x80], ["1:2: the byte 0xC3", "2:2: the byte 0xED"]),
        (
            Array("a = 1\0\n# \u{1b}[2J\n".utf8),
            ["1:6: the control character U+0000", "2:3: the control character U+001B"]
        ),
        (Array("# a\rram.budget = 5\r\n".utf8), ["1:4: a carriage return without a line feed"]),
        (Array("# \u{7f}\r".utf8), ["1:3: the control character U+007F"]),
        (Array("\t# \u{80}\u{FEFF}\u{10FFFF}\r\n".utf8), []),
    ]

    @Test(arguments: noTexts)
    func whatIsNoTextIsRefusedWithItsPlace(bytes: [UInt8], expected: [String]) {
        let errors = read(bytes).1
        #expect(errors.count == expected.count)
        for (error, expected) in zip(errors, expected) { #expect(error.hasPrefix("kvtcd.toml:" + expected)) }
    }

    @Test func aFileThatIsNoTextAtAllIsNotShownToItsEnd() {
        #expect(read(Array(repeating: [0xFF, 0x0A], count: 5000).joined()).1.count == 20)
    }

    // Where a text is no TOML, what is above is told as well.
    @Test func theFirstMistakeOfFormIsTheLast() {
        let errors = errors("[ram]\nbudgt = 1\nbudget = \"1GB\nx = 1\n[rom]\n")
        #expect(errors.map { $0.prefix(15) } == ["kvtcd.toml:2:1:", "kvtcd.toml:3:14"])
    }

    private static let texts: [(String, String)] = [
        (#""a\tb\"\\\u00fc\U0001F600""#, "a\tb\"\\ü😀"), (#"'a\b"c'"#, "a\\b\"c"),
        ("\"\"\"\na\r\n\"b\"\"\"\"", "a\r\n\"b\""),
        ("'''\r\na''b''''", "a''b'"), ("\"\"\"a\\\n  \n  b\"\"\"", "ab"), ("''", ""), ("\"\"", ""), ("''''''", ""),
    ]

    @Test(arguments: texts)
    func allKindsOfTextAreRead(text: String, meaning: String) {
        let (configuration, errors) = read("disk.directory = \(text) # c\nlog.level = 'debug'".utf8)
        #expect(errors == [] && configuration.directory ?? "" == meaning && configuration.logLevel == .debug)
    }

    @Test(arguments: [
        "1.5", "-1e6", "+1_0.0_1E-2", "inf", "-nan", "1979-05-27", "1979-05-27T07:32:00.5Z",
        "1979-05-27 07:32:00-07:00",
        "07:32:00", "true", "[ [ 1, { a.b = '}' } ], # c\n]", "{ a = { b = [\n1,\n] }, 'c' = 2 }", "{}",
    ])
    func valuesThatNoSettingTakesAreToldByTheirKind(value: String) {
        let errors = errors("workers.threads = \(value) # c\nlog.level = 'debug'")
        #expect(errors.count == 1 && errors[0].contains("; expected a whole number from 0 to 1024"), "\(errors)")
    }

    // Tables above a header's own may follow it, and lists of tables repeat.
    @Test func tablesMayBeWrittenAsTOMLAllows() {
        #expect(errors("[limits]\nkeys = 1\n[ram]\n[log]\nlevel = 'info'\n") == [])
        #expect(errors("[a.b]\n[a]\n").map { $0.prefix(17) } == ["kvtcd.toml:1:1: a", "kvtcd.toml:2:1: a"])
        #expect(errors("[[a]]\nb = 1\n[a.c]\n[[a]]\nb = 1\n[a.c]\n").count == 1)
        #expect(errors("[a]\n[[a]]\n").count == 2)
    }

    @Test func whatIsTooDeepIsRefused() {
        let depth = 100_000
        #expect(errors("a = " + String(repeating: "[", count: depth)).count == 1)
        #expect(errors("a = " + String(repeating: "{a=", count: depth)).last?.contains("in one another") == true)
        #expect(errors(String(repeating: "a.", count: depth) + "a = 1").count == 1)
    }

    // Whatever the text, reading it ends, and the places are inside of it.
    @Test func mutatedTextsDoNotTrap() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let text = Array(
            "a.\"b.c\" = { d = [1, { e = 'f' }], g = \"\"\"h\\u0000\"\"\" } # i\n[[j]]\nram.budget = \"1GB\"\r\n".utf8)
        var configuration = DaemonConfiguration(isRoot: true)
        let pieces = Array("\"'[]{}=.,#\n\r\t\\ u0\u{FC}".utf8)
        for _ in 0..<500 {
            var changed = text
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(in: 0..<changed.count, using: &random)
                if Bool.random(using: &random) {
                    changed[at] = pieces.randomElement(using: &random)!
                } else {
                    changed.remove(at: at)
                }
            }
            let lines = changed.count { $0 == 0x0A } + 1
            for error in ConfigurationFile.apply(changed, file: "f", to: &configuration) {
                guard case .file(_, let line, let column, _) = error.origin else { continue }
                #expect(
                    (1...lines).contains(line) && column >= 1,
                    "seed \(seed): \(String(decoding: changed, as: UTF8.self))")
            }
        }
    }

    @Test(arguments: [
        ("\"1048576\"", 1 << 20), ("\"2048KiB\"", 2 << 20), ("\"1.5 GiB\"", 3 << 29), ("\"2TiB\"", 2 << 40),
        ("\"1048576B\"", 1 << 20), ("1048577", 1 << 20 | 1), ("\"1024TiB\"", 1 << 50),
    ])
    func sizes(text: String, bytes: Int) {
        let (configuration, errors) = read("ram.budget = \(text)".utf8)
        #expect(errors == [] && configuration.ramBudget == bytes)
    }
}
