import Foundation
import KVTCDaemon
import KVTCSystem
import TestSupport
import Testing

@Suite struct ConfigurationTests {
    private func parse(_ text: String) throws(ConfigurationError) -> DaemonConfiguration {
        var configuration = DaemonConfiguration(isRoot: true)
        try ConfigurationFile.apply(text, file: "kvtcd.toml", to: &configuration)
        return configuration
    }

    private func failure(_ text: String) -> String {
        do { _ = try parse(text) } catch { return error.description }
        return "no error"
    }

    // The shipped file explains every key and shows the defaults.
    @Test func theShippedFileIsTheDefault() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Config/kvtcd.toml").path
        let text = try String(contentsOfFile: path, encoding: .utf8)
        var expected = DaemonConfiguration(isRoot: true)
        expected.profileDirectory = "/var/lib/kvtcd/profiles"
        #expect(try parse(text) == expected)
        for key in ConfigurationFile.keys {
            let name = try #require(key.split(separator: ".").last)
            #expect(text.contains("\n\(name) = ") || text.contains("\n# \(name) = "), "\(key) is not explained")
        }
    }

    @Test func valuesArrive() throws {
        let configuration = try parse(
            """
            socket = { path = "/x/s", mode = "0600" }
            ram.budget = "1.5GiB"
            disk.budget = 1048576
            [workers]
            threads = 3
            [limits]
            hello_s = 7
            """)
        #expect(configuration.socketPath == "/x/s")
        #expect(configuration.socketMode == 0o600)
        #expect(configuration.ramBudget == 3 << 29)
        #expect(configuration.diskBudget == 1 << 20)
        #expect(configuration.workers == 3)
        #expect(configuration.limits.helloSeconds == 7)
    }

    @Test(arguments: [
        ("[ram]\nbudgets = 1\n", "kvtcd.toml:2:1: ram.budgets: unknown key; did you mean ram.budget?"),
        ("\n\n  [rom]\nbudget = 1\n", "kvtcd.toml:3:3: rom: unknown key"),
        ("nonsense = true\n", "kvtcd.toml:1:1: nonsense: unknown key"),
        ("socket = { path = \"/s\", wrong = 1 }", "kvtcd.toml:1:25: socket.wrong: unknown key"),
        ("ram = 5", "kvtcd.toml:1:1: ram: expected a table"),
        ("[disk]\n# a comment\n   directory = 5", "kvtcd.toml:3:4: disk.directory: expected a string"),
        (
            "[ram]\nbudget = true",
            "kvtcd.toml:2:1: ram.budget: expected bytes as an integer, or a string such as \"4GiB\""
        ),
        (
            "[ram]\nbudget = \"4 GB\"",
            "kvtcd.toml:2:1: ram.budget: expected bytes as an integer, or a string such as \"4GiB\""
        ),
        ("workers.threads = 1.5", "kvtcd.toml:1:1: workers.threads: expected an integer"),
        ("workers.threads = -1", "kvtcd.toml:1:1: workers.threads: -1 is not between 0 and 1024"),
        ("ram.budget = -1", "kvtcd.toml:1:1: ram.budget: -1 bytes are not between 0 and 1125899906842624"),
        (
            "[socket]\nmode = \"999\"",
            "kvtcd.toml:2:1: socket.mode: expected permissions as a string of octal digits, such as \"0660\""
        ),
        (
            "log.level = \"loud\"",
            "kvtcd.toml:1:1: log.level: expected one of trace, debug, info, notice, warning, error, critical"
        ),
    ])
    func mistakesAreShownWithTheirPlace(text: String, message: String) {
        #expect(failure(text) == message)
    }

    @Test func brokenTOMLIsShownWithItsPlace() {
        #expect(failure("[ram]\nbudget = = 1\n").hasPrefix("kvtcd.toml:2:10: "))
        #expect(failure("[ram\n").hasPrefix("kvtcd.toml:1:"))
    }

    @Test func moreThanTheMachineHasIsRefused() throws {
        let directory = try TemporaryDirectory()
        var configuration = DaemonConfiguration(isRoot: true)
        configuration.directory = directory.file("state")
        configuration.diskBudget = 1 << 20
        try configuration.validate()
        configuration.ramBudget = Machine.memoryBytes + 1
        #expect(throws: ConfigurationError.self) { try configuration.validate() }
        configuration.ramBudget = 1 << 30
        configuration.diskBudget = 1 << 59
        let error = #expect(throws: ConfigurationError.self) { try configuration.validate() }
        #expect(error?.key == "disk.budget")
    }

    @Test func aDirectoryThatCannotBeWrittenIsRefused() throws {
        let directory = try TemporaryDirectory()
        var configuration = DaemonConfiguration(isRoot: true)
        // A file in the way stops root too, unlike permissions.
        try Data().write(to: URL(fileURLWithPath: directory.file("file")))
        configuration.directory = directory.file("file") + "/state"
        var error = #expect(throws: ConfigurationError.self) { try configuration.validate() }
        #expect(error?.key == "disk.directory")
        configuration.directory = "/proc/kvtcd"
        error = #expect(throws: ConfigurationError.self) { try configuration.validate() }
        #expect(error?.key == "disk.directory")
    }

    @Test func defaultsFollowTheEnvironment() {
        let service = DaemonConfiguration(environment: ["STATE_DIRECTORY": "/var/lib/x"], isRoot: false)
        #expect(service.directory == "/var/lib/x")
        #expect(service.effectiveProfileDirectory == "/var/lib/x/profiles")
        let user = DaemonConfiguration(environment: ["HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/5"], isRoot: false)
        #expect(user.socketPath == "/run/user/5/kvtcd/kvtcd.sock")
        #expect(user.directory == "/h/.local/state/kvtcd")
    }

    @Test(arguments: [
        ("4096", 4096), ("1KiB", 1024), ("1.5 GiB", 3 << 29), ("2TiB", 2 << 40), ("0B", 0), ("", nil), ("GiB", nil),
        ("1GB", nil), ("-1", nil), ("1e5", nil), ("99999999999TiB", nil),
    ])
    func sizes(text: String, bytes: Int?) { #expect(ByteSize.parse(text) == bytes) }

    @Test(arguments: [
        ("plain", "plain"), ("", "\"\""), ("two words", "\"two words\""), ("a=b", "\"a=b\""), ("\n", "\"\\n\""),
        ("\u{1b}[0m", "\"\\u{1b}[0m\""), ("\"", "\"\\\"\""),
    ])
    func logValuesCannotForgeLines(text: String, written: String) { #expect(KeyValueLog.quoted(text) == written) }
}
