import Foundation
import KVTCDaemon
import KVTCSystem
import TestSupport
import Testing

/// Defaults, what no single value shows, and the documents.
@Suite struct ConfigurationTests {
    private static let roomy = Machine(memory: .init(64 << 30), processors: .init(8))

    private func configuration(
        _ environment: [String: String] = [:], isRoot: Bool = true, machine: Machine = roomy
    ) -> DaemonConfiguration {
        DaemonConfiguration(environment: environment, isRoot: isRoot, machine: machine)
    }

    private func applied(
        _ text: String, machine: Machine = roomy
    ) -> (configuration: DaemonConfiguration, errors: [ConfigurationError]) {
        var configuration = configuration(machine: machine)
        let errors = ConfigurationFile.apply(Array(text.utf8), file: "f", to: &configuration)
        return (configuration, errors)
    }

    private func values(_ configuration: DaemonConfiguration) -> [String] {
        configuration.settings.map { "\($0.key) = \($0.value.toml)" }
    }

    private func place(_ key: String, _ configuration: DaemonConfiguration) -> String? {
        configuration.settings.first { $0.key == key }?.origin.place
    }

    // MARK: - Defaults

    @Test func defaultsFollowTheEnvironment() {
        let service = configuration(["STATE_DIRECTORY": "/var/lib/x:/var/lib/y"], isRoot: false)
        #expect(service.directory == "/var/lib/x")
        #expect(service.effectiveProfileDirectory == "/var/lib/x/profiles")
        #expect(place("disk.directory", service) == "default, from STATE_DIRECTORY")
        let user = configuration(["HOME": "/h/", "XDG_RUNTIME_DIR": "/run/user/5"], isRoot: false)
        #expect(user.socketPath == "/run/user/5/kvtcd/kvtcd.sock")
        #expect(user.directory == "/h/.local/state/kvtcd")
        #expect(place("socket.path", user) == "default, from XDG_RUNTIME_DIR")
        // Empty and relative ones count as not set.
        let bare = configuration(["HOME": "/h", "XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": "x"], isRoot: false)
        #expect(bare.socketPath == "/h/.cache/kvtcd/kvtcd.sock")
        #expect(bare.directory == "/h/.local/state/kvtcd")
        #expect(place("socket.path", bare) == "default, from HOME")
    }

    @Test func defaultsFollowTheLimitsOfTheProcess() {
        let group = "/sys/fs/cgroup/kvtcd.slice"
        let small = configuration(
            machine: Machine(
                memory: .init(512 << 20, source: group + "/memory.max"),
                processors: .init(2, source: group + "/cpu.max")))
        #expect(small.ramBudget == 128 << 20 && small.workers == 2)
        #expect(small.limits.arenaBytesPerUser == 128 << 20 && small.limits.arenaBytes == 128 << 20)
        #expect(small.limits.inFlightBytesPerUser == 64 << 20)
        #expect(place("ram.budget", small) == "default, from \(group)/memory.max")
        #expect(place("workers.threads", small) == "default, from \(group)/cpu.max")
        // "0" and "" stand for the default, not for a value of the file's.
        let zero = applied("workers.threads = 0\nprofiles.directory = \"\"").configuration
        #expect(zero.workers == 8 && place("workers.threads", zero) == "default, from the machine's processors")
        #expect(place("profiles.directory", zero) == "default, from disk.directory")
    }

    @Test func theDefaultDiskBudgetKeepsWhatRAMHolds() throws {
        let directory = try TemporaryDirectory()
        var configuration = configuration()
        configuration.directory = directory.file("not/there/yet")
        var filesystem = statvfs()
        try #require(statvfs(directory.path, &filesystem) == 0)
        let half = Int(filesystem.f_blocks) * Int(filesystem.f_frsize) / 2
        configuration.ramBudget = 1 << 20
        #expect(configuration.effectiveDiskBudget == min(10 << 30, half))
        configuration.ramBudget = 32 << 30
        #expect(configuration.effectiveDiskBudget == min(40 << 30, half))
        configuration.ramBudget = 1 << 50
        #expect(configuration.effectiveDiskBudget == half)
    }

    // MARK: - Checks

    /// Keys of errors and warnings.
    private func found(_ configuration: DaemonConfiguration) -> (errors: [String], warnings: [String]) {
        let findings = configuration.check(isTrial: true)
        return (findings.errors.map(\.description), findings.warnings.map(\.description))
    }

    @Test func budgetsMustFitTheProcess() throws {
        let directory = try TemporaryDirectory()
        let limit = "/sys/fs/cgroup/kvtcd.slice/memory.max"
        let machine = Machine(memory: .init(6 << 30, source: limit), processors: .init(1))
        func found(_ text: String) -> (errors: [String], warnings: [String]) {
            let (configuration, errors) = applied(
                "socket.path = '\(directory.file("s"))'\ndisk.directory = ''\n" + text, machine: machine)
            #expect(errors.isEmpty)
            return self.found(configuration)
        }
        #expect(found("") == ([], []))
        #expect(found("[ram]\nbudget = '4608MiB'") == ([], []))
        // With the 1.5 GiB that one user's arenas may take.
        #expect(
            found("[ram]\nbudget = '5GiB'").warnings == [
                "f:4:1: ram.budget = '5GiB': with the arenas of one user (limits.arena_per_user = 1536MiB) more than "
                    + "the 6GiB of memory that \(limit) allows: lower one of them"
            ])
        #expect(
            found("[ram]\nbudget = '7GiB'").errors == [
                "f:4:1: ram.budget = '7GiB': more than the 6GiB of memory that \(limit) allows"
            ])
        #expect(found("limits.connections = 3") == ([], []))
        #expect(found("limits.arena = '8GiB'").warnings.map { $0.hasPrefix("f:3:1: limits.arena = ") } == [true])
        #expect(found("limits.connections = 3\nlimits.connections_per_user = 4").warnings.count == 1)
        #expect(found("limits.ram_per_user = '2GiB'").warnings.count == 1)
    }

    @Test func theDiskMustFitItsFileSystem() throws {
        let directory = try TemporaryDirectory()
        func found(_ text: String) -> (errors: [String], warnings: [String]) {
            let (configuration, errors) = applied(
                "[socket]\npath = '\(directory.file("s"))'\n[disk]\ndirectory = '\(directory.file("a/b"))'\n" + text)
            #expect(errors.isEmpty)
            return self.found(configuration)
        }
        #expect(found("budget = '1MiB'\n[ram]\nbudget = '1MiB'") == ([], []))
        let large = found("budget = '1024TiB'\n[ram]\nbudget = '1MiB'")
        #expect(large.errors.count == 1 && large.errors[0].hasPrefix("f:5:1: disk.budget = '1024TiB': more than the "))
        let less = found("budget = '1MiB'\nsegment = '1MiB'\n[ram]\nbudget = '2MiB'")
        #expect(less.errors.isEmpty && less.warnings.count == 2)
        #expect(less.warnings[0].contains("raise disk.budget above ram.budget (2MiB)"))
        #expect(less.warnings[1] == "f:6:1: disk.segment = '1MiB': segments get 256KiB, a quarter of disk.budget")
        #expect(!FileManager.default.fileExists(atPath: directory.file("a")), "a check leaves nothing behind")
    }

    @Test func directoriesThatCannotBeUsedAreRefused() throws {
        let directory = try TemporaryDirectory()
        // A file in the way stops root too, unlike permissions.
        try Data().write(to: URL(fileURLWithPath: directory.file("file")))
        func found(_ text: String) -> [String] {
            let (configuration, errors) = applied(text)
            #expect(errors.isEmpty)
            return self.found(configuration).errors
        }
        let socket = "socket.path = '\(directory.file("s"))'\nram.budget = '1MiB'\ndisk.budget = '1MiB'\n"
        for path in [directory.file("file"), directory.file("file") + "/state", "/proc/kvtcd"] {
            let errors = found(socket + "disk.directory = '\(path)'")
            #expect(errors.count == 1 && errors[0].hasPrefix("f:4:1: disk.directory = '\(path)': "), "\(errors)")
        }
        let disk = "ram.budget = '1MiB'\ndisk.directory = ''\n"
        for path in [directory.file("none"), directory.file("file")] {
            let errors = found(socket + "disk.directory = ''\nprofiles.directory = '\(path)'")
            #expect(errors.count == 1 && errors[0].hasPrefix("f:5:1: profiles.directory = '\(path)': "), "\(errors)")
        }
        // The default place may be missing, also where it is named.
        let state = directory.file("state")
        #expect(found(socket + "disk.directory = '\(state)'\nprofiles.directory = '\(state)/profiles'") == [])
        let sockets = [
            (directory.path, "no socket"), (directory.file("file"), "no socket"),
            (directory.file("file/s"), "Not a directory"),
            (directory.file("a/b/s"), "does not exist"), ("/proc/self/s/s", "/proc/self"),
            ("/" + String(repeating: "x", count: 107), "107"),
        ]
        for (path, reason) in sockets {
            let errors = found(disk + "socket.path = '\(path)'")
            #expect(errors.count == 1 && errors[0].hasPrefix("f:3:1: socket.path = '\(path)': "), "\(errors)")
            #expect(errors.first?.contains(reason) == true, "\(errors)")
        }
        #expect(found(disk + "socket.path = '\(directory.file("a/s"))'") == [])
        #expect(!FileManager.default.fileExists(atPath: directory.file("a")))
    }

    @Test func belowHomeTheParentsOfTheSocketMayBeMissing() throws {
        let home = try TemporaryDirectory()
        func errors(_ environment: [String: String]) -> [String] {
            var configuration = configuration(environment, isRoot: false)
            configuration.directory = nil
            return found(configuration).errors
        }
        #expect(errors(["HOME": home.path]) == [])
        let missing = home.file("none")
        let path = missing + "/.cache/kvtcd/kvtcd.sock"
        #expect(
            errors(["HOME": missing]) == [
                "socket.path = \"\(path)\" (default, from HOME): \(missing) does not exist; make it, or choose another path "
                    + "with socket.path or --socket"
            ])
        let runtime = errors(["HOME": home.path, "XDG_RUNTIME_DIR": "/nonexistent/user"])
        #expect(
            runtime.count == 1 && runtime[0].contains("(default, from XDG_RUNTIME_DIR): /nonexistent does not exist"))
        // The service manager's socket needs no directory of the daemon's.
        var other = configuration(["HOME": missing], isRoot: false)
        other.directory = nil
        #expect(other.check(isTrial: true, bound: ["/run/other"]).errors.allSatisfy { $0.key != "socket.path" })
    }

    @Test func optionsAreJudgedLikeTheFile() {
        var configuration = configuration()
        configuration.directory = nil
        func failure(_ key: String, _ text: String, _ option: String) -> String {
            do throws(ConfigurationError) { try configuration.set(key, to: text, option: option) } catch {
                return error.description
            }
            return ""
        }
        #expect(
            failure("ram.budget", "-1", "--ram-budget").hasPrefix(
                "--ram-budget -1: does not begin with digits 0 to 9; "))
        #expect(failure("socket.path", "", "--socket") == "--socket \"\": is empty; expected a path as text")
        #expect(failure("socket.path", "--json", "--socket").hasPrefix("--socket --json: looks like an option"))
        #expect(
            failure("log.level", "a\u{1b}[2Jb\n", "--log-level").hasPrefix("--log-level a\\u{1b}[2Jb\\n: unknown; "))
        #expect(failure("ram.budget", "1TiB", "--ram-budget") == "")
        let findings = configuration.check(isTrial: true)
        let beyond = findings.errors.first { $0.key == "ram.budget" }
        #expect(beyond?.description == "--ram-budget 1TiB: more than the 64GiB of memory that this machine has")
        let file = ConfigurationError(key: "a", "wrong", origin: .file("f", line: 2, column: 1, text: "1"))
        #expect(ConfigurationErrors([file]).exitCode == 78)
        let all = ConfigurationErrors([beyond, file].compactMap(\.self))
        #expect(all.exitCode == 64 && all.all.map(\.key) == ["a", "ram.budget"])
    }

    // MARK: - Documents

    private func document(_ name: String) throws -> String {
        try String(contentsOfFile: testFile("../\(name)"), encoding: .utf8)
    }

    // The shipped file shows the defaults, also those in comments, and explains every key.
    @Test func theShippedFileExplainsEveryKeyAndShowsTheDefault() throws {
        let text = try document("Config/kvtcd.toml")
        let shipped = applied(text)
        #expect(shipped.errors.isEmpty)
        #expect(values(shipped.configuration) == values(configuration()))
        let examples = text.replacing("\n# budget = ", with: "\nbudget = ").replacing(
            "\n# directory = ", with: "\ndirectory = ")
        let complete = applied(examples)
        #expect(complete.errors.isEmpty)
        let set = complete.configuration.settings.filter { $0.origin.place.hasPrefix("f:") }.map(\.key)
        // A thread per processor is written as 0, which stands for the default.
        #expect(set == ConfigurationSetting.all.map(\.key).filter { $0 != "workers.threads" })
        #expect(text.contains("\nthreads = 0\n") && text.contains("\n# engines = ["))
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (line, previous) in zip(lines.dropFirst(), lines) where line.contains(" = ") {
            #expect(previous != "" && !previous.hasPrefix("["), "nothing explains \(line)")
        }
    }

    // Names, ranges and defaults, in the order of the settings.
    @Test func theManualHasEveryKeyWithItsRangeAndDefault() throws {
        let page = try document("deploy/man/kvtcd.toml.5").replacing("\\-", with: "-").replacing("\\(dq", with: "\"")
        var (table, keys, entries) = ("", [String](), [String: String]())
        for section in page.split(separator: "\n.SH ") where section.hasPrefix("[") {
            table = String(section.dropFirst().prefix { $0 != "]" })
            for entry in (section + "\n").split(separator: "\n.TP\n.B ").dropFirst() {
                let key = table + "." + entry.prefix { $0 != "\n" }
                keys.append(key)
                entries[key] = entry.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            }
        }
        for table in ConfigurationSetting.tablesOfNames.keys { #expect(page.contains("\n.SH [\(table)]\n")) }
        #expect(Set(keys) == Set(ConfigurationSetting.all.map(\.key)) && keys.count == Set(keys).count)
        let defaults = Dictionary(uniqueKeysWithValues: configuration().settings.map { ($0.key, $0) })
        for setting in ConfigurationSetting.all {
            let entry = entries[setting.key] ?? ""
            if let range = setting.allowed.firstMatch(of: #/from (\S+ to [^\s,]+)/#) {
                #expect(entry.contains(range.1), "\(setting.key) lacks the range \(range.1): \(entry)")
            }
            // What depends on machine and environment has a sentence that begins so.
            if case .standard(follows: nil)? = defaults[setting.key]?.origin {
                let value = defaults[setting.key]!.value.toml
                #expect(entry.contains("(\(value)") || entry.contains("Default: "), "\(setting.key) lacks \(value)")
            } else {
                #expect(entry.contains("efault"), "\(setting.key) lacks its default")
            }
        }
    }

    // What a check prints is a configuration that says the same.
    @Test func aReportReadAgainSaysTheSame() throws {
        let text = """
            tenants."a.b" = [1000, "root"]
            admin.group = "root"
            admin.users = [1, 2]
            log.level = "debug"
            disk.directory = "/x\\t\\"\\u0007ü"
            ram.budget = 1048577
            limits.ram_per_user = 0
            """
        let configuration = applied(text).configuration
        let again = applied(configuration.lines.map { "\($0.assignment) # \($0.place)\n" }.joined())
        #expect(again.errors.isEmpty)
        #expect(values(again.configuration) == values(configuration))
    }

    @Test(arguments: [
        ("plain", "plain"), ("", "\"\""), ("two words", "\"two words\""), ("a=b", "\"a=b\""), ("\n", "\"\\n\""),
        ("\u{1b}[0m", "\"\\u{1b}[0m\""), ("\"", "\"\\\"\""),
    ])
    func logValuesCannotForgeLines(text: String, written: String) { #expect(KeyValueLog.quoted(text) == written) }
}
