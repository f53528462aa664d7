import KVTCDaemon
import KVTCSystem
import Testing

/// What becomes of each setting when a running daemon reads its configuration anew.
@Suite struct ConfigurationChangeTests {
    private static let machine = Machine(memory: .init(64 << 30), processors: .init(8))
    private let current = DaemonConfiguration(environment: [:], isRoot: true, machine: machine)

    /// What is sized, bound or opened at the start.
    private static let fixed: Set<String> = Set([
        "socket.path", "socket.mode", "ram.budget", "disk.directory", "disk.budget", "disk.segment",
        "profiles.directory", "workers.threads", "containers.web",
    ]).union(ConfigurationSetting.all.map(\.key).filter { $0.hasPrefix("shared.") })
    /// Where half or one more is not what the key may be.
    private static let values = [
        "socket.path": "\"/run/other.sock\"", "socket.mode": "\"0600\"", "disk.directory": "\"/srv/pages\"",
        "profiles.directory": "\"/srv/profiles\"", "sessions.code": "\"idle\"", "admin.users": "[0]",
        "admin.group": "\"0\"",
        "log.level": "\"debug\"", "limits.ram_per_user": "\"1GiB\"", "limits.disk_per_user": "\"1GiB\"",
        "shared.url": "\"redis://a\"", "shared.password_file": "\"/etc/password\"",
        "shared.secret_file": "\"/etc/secret\"", "shared.ca_file": "\"/etc/ca\"", "shared.key_file": "\"/etc/key\"",
        "shared.certificate_file": "\"/etc/certificate\"", "shared.prefix": "\"other\"", "shared.write": "\"always\"",
        "shared.write_budget": "\"1GiB\"", "shared.encryption": "\"aes-gcm\"",
        "tenants.engines": "[0]", "containers.web": "\"/run/web.sock\"",
    ]

    private func other(_ key: String) throws -> String {
        if let value = Self.values[key] { return value }
        let setting = try #require(ConfigurationSetting.all.first { $0.key == key })
        switch setting.value(in: current) {
        case .integer(let number): return "\(number + 1)"
        case .bytes(let bytes): return "\(bytes / 2)"
        case let value: throw ConfigurationError(key: key, "no other value is known than \(value)")
        }
    }

    private func changed(_ text: String) -> DaemonConfiguration {
        var wanted = DaemonConfiguration(environment: [:], isRoot: true, machine: Self.machine)
        #expect(ConfigurationFile.apply(Array(text.utf8), file: "f", to: &wanted) == [])
        return wanted
    }

    @Test(arguments: ConfigurationSetting.all.map(\.key) + ["tenants.engines", "containers.web"])
    func eachIsTakenOverOrNamed(_ key: String) throws {
        let wanted = changed("\(key) = \(try other(key))\n")
        let change = ConfigurationChange(from: current, to: wanted)
        func value(_ configuration: DaemonConfiguration) -> ConfigurationValue? {
            configuration.settings.first { $0.key == key }?.value
        }
        #expect(value(wanted) != value(current))
        if Self.fixed.contains(key) {
            #expect(change.taken == [] && change.waiting.contains(key))
            #expect(change.configuration == current)
        } else {
            #expect(change.taken == [key] && change.waiting == [])
            #expect(value(change.configuration) == value(wanted))
            // And back: what is no longer set is as it was.
            let back = ConfigurationChange(from: change.configuration, to: current)
            #expect(back.taken == [key] && back.configuration == current)
        }
    }

    @Test func nothingChangesWhereNothingDid() {
        let change = ConfigurationChange(from: current, to: changed("[limits]\nkeys = \(current.limits.keys)\n"))
        #expect(change.taken == [] && change.waiting == [] && change.configuration == current)
    }
}
