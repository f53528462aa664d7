import KVTCSystem
import TOMLKit

/// What each key of the configuration file sets.
enum ConfigurationSetting {
    typealias Apply =
        @Sendable (String, any TOMLValueConvertible, inout DaemonConfiguration) throws(ConfigurationError) -> Void

    static let all: [String: Apply] = [
        "socket.path": text { $0.socketPath = $1 },
        "socket.mode": { key, value, configuration throws(ConfigurationError) in
            guard let digits = value.string, let mode = UInt32(digits, radix: 8), mode <= 0o777 else {
                throw ConfigurationError(key: key, "expected permissions as a string of octal digits, such as \"0660\"")
            }
            configuration.socketMode = mode
        },
        "ram.budget": size { $0.ramBudget = $1 },
        "disk.directory": text { $0.directory = $1.isEmpty ? nil : $1 },
        "disk.budget": size { $0.diskBudget = $1 },
        "disk.segment": size(1 << 20...4 << 30) { $0.segmentBytes = $1 },
        "profiles.directory": text { $0.profileDirectory = $1.isEmpty ? nil : $1 },
        "workers.threads": number(0...1024) { $0.workers = $1 == 0 ? Machine.processors : $1 },
        "sessions.near_after_s": number(1...1 << 30) { $0.nearAfterSeconds = $1 },
        "admin.users": { key, value, configuration throws(ConfigurationError) in
            configuration.tenants.administrators = Set(try users(value, key: key))
        },
        "admin.group": { key, value, configuration throws(ConfigurationError) in
            guard let name = value.string else { throw ConfigurationError(key: key, "expected a string") }
            configuration.tenants.administratorGroup = name.isEmpty ? nil : try Tenants.group(name, key: key)
        },
        "log.level": { key, value, configuration throws(ConfigurationError) in
            guard let level = value.string, levels.contains(level) else {
                throw ConfigurationError(key: key, "expected one of \(levels.joined(separator: ", "))")
            }
            configuration.logLevel = level
        },
        "limits.connections": number(1...65_536) { $0.limits.connections = $1 },
        "limits.connections_per_user": number(1...65_536) { $0.limits.connectionsPerUser = $1 },
        "limits.in_flight": number(1...4096) { $0.limits.inFlight = $1 },
        "limits.body": size(4096...64 << 20) { $0.limits.bodyBytes = $1 },
        "limits.keys": number(1...1 << 21) { $0.limits.keys = $1 },
        "limits.in_flight_bytes_per_user": size(4096...1 << 44) { $0.limits.inFlightBytesPerUser = $1 },
        "limits.ram_per_user": size { $0.limits.ramPerUser = $1 },
        "limits.disk_per_user": size { $0.limits.diskPerUser = $1 },
        "limits.idle_s": number(1...1 << 30) { $0.limits.idleSeconds = $1 },
        "limits.arena": size(4096...1 << 40) { $0.limits.arenaBytes = $1 },
        "limits.arena_per_user": size(4096...1 << 44) { $0.limits.arenaBytesPerUser = $1 },
        "limits.sessions_per_user": number(1...1 << 20) { $0.limits.sessionsPerUser = $1 },
        "limits.leases_per_user": number(1...1 << 20) { $0.limits.leasesPerUser = $1 },
        "limits.lease_s": number(1...86_400) { $0.limits.leaseSeconds = $1 },
        "limits.sink_tokens": number(0...1 << 24) { $0.limits.sinkTokens = $1 },
        "limits.window_tokens": number(0...1 << 24) { $0.limits.windowTokens = $1 },
        "limits.protected_ranges": number(0...1 << 16) { $0.limits.protectedRanges = $1 },
        "limits.session_tokens": number(16...1 << 30) { $0.limits.sessionTokens = $1 },
        "limits.hello_s": number(1...3600) { $0.limits.helloSeconds = $1 },
        "limits.frame_s": number(1...3600) { $0.limits.frameSeconds = $1 },
        "limits.write_s": number(1...3600) { $0.limits.writeSeconds = $1 },
    ]

    static let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]

    /// What a key sets; tenants are named freely.
    static func apply(_ key: String) -> Apply? {
        if let setting = all[key] { return setting }
        guard key.hasPrefix("tenants.") else { return nil }
        return { key, value, configuration throws(ConfigurationError) in
            try configuration.tenants.share(try users(value, key: key), key: key)
        }
    }

    private static func users(
        _ value: any TOMLValueConvertible, key: String
    ) throws(ConfigurationError) -> [UInt32] {
        guard let list = value.array else { throw ConfigurationError(key: key, "expected a list of users") }
        var users: [UInt32] = []
        for item in list {
            guard let name = item.string ?? item.int.map(String.init) else {
                throw ConfigurationError(key: key, "expected names or numbers of users")
            }
            users.append(try Tenants.user(name, key: key))
        }
        return users
    }

    private static func text(_ set: @escaping @Sendable (inout DaemonConfiguration, String) -> Void) -> Apply {
        { key, value, configuration throws(ConfigurationError) in
            guard let text = value.string else { throw ConfigurationError(key: key, "expected a string") }
            guard !text.utf8.contains(0) else { throw ConfigurationError(key: key, "contains a NUL character") }
            set(&configuration, text)
        }
    }

    private static func number(
        _ range: ClosedRange<Int>, _ set: @escaping @Sendable (inout DaemonConfiguration, Int) -> Void
    ) -> Apply {
        { key, value, configuration throws(ConfigurationError) in
            guard let number = value.int else { throw ConfigurationError(key: key, "expected an integer") }
            guard range.contains(number) else {
                throw ConfigurationError(
                    key: key, "\(number) is not between \(range.lowerBound) and \(range.upperBound)")
            }
            set(&configuration, number)
        }
    }

    private static func size(
        _ range: ClosedRange<Int> = 0...(1 << 50),
        _ set: @escaping @Sendable (inout DaemonConfiguration, Int) -> Void
    ) -> Apply {
        { key, value, configuration throws(ConfigurationError) in
            let parsed = value.int ?? value.string.flatMap(ByteSize.parse)
            guard let bytes = parsed else {
                throw ConfigurationError(key: key, "expected bytes as an integer, or a string such as \"4GiB\"")
            }
            guard range.contains(bytes) else {
                throw ConfigurationError(
                    key: key, "\(bytes) bytes are not between \(range.lowerBound) and \(range.upperBound)")
            }
            set(&configuration, bytes)
        }
    }

    /// A known key that was probably meant: the same last part elsewhere, or nearly the same spelling.
    static func nearest(to key: String) -> String? {
        let candidates = all.keys.map { ($0, distance(Array(key), Array($0))) }
        return candidates.filter { $0.1 <= 3 }.min { ($0.1, $0.0) < ($1.1, $1.0) }?.0
    }

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

/// Sizes as people write them.
public enum ByteSize {
    /// Bytes of a text such as `4096`, `512MiB` or `1.5GiB`; nil for anything else.
    public static func parse(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let units = ["": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40]
        let unit = String(text.dropFirst(digits.count).drop { $0 == " " })
        guard let number = Double(digits), number.isFinite, let shift = units[unit] else { return nil }
        let bytes = number * Double(1 << shift)
        guard bytes < 0x1p60 else { return nil }
        return Int(bytes)
    }
}
