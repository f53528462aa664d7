import KVTCShared
import KVTCSystem

/// One key of the configuration: what it may be, what it sets and what is in effect. The reader of files, the options,
/// the report of a check and the test of the documents all go by ``all``.
public struct ConfigurationSetting: Sendable {
    /// The dotted key.
    public let key: String
    /// What its value may be, as errors and the manual say it.
    public let allowed: String
    /// The value that stands for the default, where there is one.
    let absent: ConfigurationValue?
    /// Sets a value, or says what is wrong with it.
    private let read: @Sendable (ConfigurationValue, inout DaemonConfiguration) -> [Refusal]
    private let show: @Sendable (DaemonConfiguration) -> ConfigurationValue
    /// Takes the value of one configuration over into another; nil for what a running daemon never takes over.
    private let adopt: Adoption?
    typealias Adoption = @Sendable (_ from: DaemonConfiguration, _ into: inout DaemonConfiguration) -> Void

    /// What is wrong with a value, or with one element of a list.
    struct Refusal {
        var reason: String
        var element: Int?
    }

    /// All settings but those of ``tablesOfNames``, in the order of `Config/kvtcd.toml`.
    public static let all: [ConfigurationSetting] = [
        path("socket.path", \.socketPath),
        mode("socket.mode", \.socketMode),
        size("ram.budget", 1 << 20...1 << 50, \.ramBudget),
        number("ram.code_above", 20...95, \.codeAbovePercent),
        path("disk.directory", orEmpty: "for RAM only", \.directoryText),
        size("disk.budget", 1 << 20...1 << 50, orZero: "for RAM only", \.diskBudgetInEffect),
        size("disk.segment", 1 << 20...4 << 30, \.segmentBytes),
        path("profiles.directory", orEmpty: "for the default", absent: .text(""), \.profilesInEffect),
        number("workers.threads", 0...1024, absent: .integer(0), \.workers),
        number("sessions.near_after_s", 1...1 << 30, \.nearAfterSeconds),
        choice("sessions.code", \.code),
        text("shared.url", orEmpty: "for none", \.shared.url) { _ in nil },
        path("shared.password_file", orEmpty: "for none", \.shared.passwordFile),
        path("shared.secret_file", orEmpty: "for none", \.shared.secretFile),
        path("shared.ca_file", orEmpty: "for the system's authorities", \.shared.authorityFile),
        path("shared.certificate_file", orEmpty: "for none", \.shared.certificateFile),
        path("shared.key_file", orEmpty: "for none", \.shared.keyFile),
        text("shared.prefix", \.shared.prefix) {
            FleetSettings.isPrefix($0) ? nil : "has other characters than letters, digits, - _ . and :, or not 1 to 64"
        },
        choice("shared.write", \.shared.write),
        size("shared.write_budget", 1 << 16...1 << 40, orZero: "for no limit", \.shared.writeBudget),
        number("shared.lookup_ms", 1...1000, \.shared.lookupMilliseconds),
        number("shared.pull_ms", 10...60_000, \.shared.pullMilliseconds),
        number("shared.absent_s", 0...3600, \.shared.absentSeconds),
        choice("shared.encryption", \.shared.encryption),
        users("admin.users"),
        group("admin.group"),
        choice("log.level", \.logLevel),
        number("limits.connections", 1...65_536, \.limits.connections),
        number("limits.connections_per_user", 1...65_536, \.limits.connectionsPerUser),
        number("limits.in_flight", 1...4096, \.limits.inFlight),
        size("limits.body", 4096...64 << 20, \.limits.bodyBytes),
        number("limits.keys", 1...1 << 21, \.limits.keys),
        size("limits.in_flight_bytes_per_user", 4096...1 << 44, \.limits.inFlightBytesPerUser),
        size("limits.arena", 4096...1 << 40, \.limits.arenaBytes),
        size("limits.arena_per_user", 4096...1 << 44, \.limits.arenaBytesPerUser),
        number("limits.arenas_per_connection", 1...65_536, \.limits.arenasPerConnection),
        number("limits.arenas_per_user", 1...65_536, \.limits.arenasPerUser),
        size("limits.ram_per_user", 1 << 20...1 << 50, orZero: "for no limit of its own", \.limits.ramPerUser),
        size("limits.disk_per_user", 1 << 20...1 << 50, orZero: "for no limit of its own", \.limits.diskPerUser),
        number("limits.sessions_per_user", 1...1 << 20, \.limits.sessionsPerUser),
        number("limits.leases_per_user", 1...1 << 20, \.limits.leasesPerUser),
        number("limits.lease_s", 1...86_400, \.limits.leaseSeconds),
        number("limits.sink_tokens", 0...1 << 24, \.limits.sinkTokens),
        number("limits.window_tokens", 0...1 << 24, \.limits.windowTokens),
        number("limits.protected_ranges", 0...1 << 16, \.limits.protectedRanges),
        number("limits.session_tokens", 16...1 << 30, \.limits.sessionTokens),
        number("limits.hello_s", 1...3600, \.limits.helloSeconds),
        number("limits.idle_s", 1...1 << 30, \.limits.idleSeconds),
        number("limits.frame_s", 1...3600, \.limits.frameSeconds),
        number("limits.write_s", 1...3600, \.limits.writeSeconds),
    ]

    /// Tables whose keys are free names, and what each such key sets.
    public static let tablesOfNames: [String: @Sendable (_ key: String) -> ConfigurationSetting] = [
        "tenants": tenant, "containers": container,
    ]

    private static let byKey = Dictionary(uniqueKeysWithValues: all.map { ($0.key, $0) })

    /// The setting of a key.
    static func named(_ key: String) -> ConfigurationSetting? {
        if let setting = byKey[key] { return setting }
        guard let point = key.firstIndex(of: ".") else { return nil }
        return tablesOfNames[String(key[..<point])]?(key)
    }

    /// A key as a file has it: free names may need quotes.
    static func spelled(_ key: String) -> String {
        guard let point = key.firstIndex(of: "."), tablesOfNames[String(key[..<point])] != nil else { return key }
        return "\(key[..<point]).\(spelled(name: String(key[key.index(after: point)...])))"
    }

    /// A part of a key as a file has it.
    static func spelled(name: String) -> String {
        let isBare = !name.isEmpty && name.utf8.allSatisfy(TOMLReader.isBare)
        return isBare ? name : ConfigurationValue.text(name).toml
    }

    /// Whether a dotted key names a table.
    static func isTable(_ key: String) -> Bool {
        tablesOfNames[key] != nil || all.contains { $0.key.hasPrefix(key + ".") }
    }

    /// Sets a value, or throws what is wrong with it, of a list with every element.
    func apply(_ value: ConfigurationValue, to configuration: inout DaemonConfiguration) throws(ConfigurationErrors) {
        // C ends its text there, and with it a path or the name of a user.
        let refusals = value.hasNUL ? [Refusal(reason: "has a NUL character")] : read(value, &configuration)
        guard refusals.isEmpty else {
            throw ConfigurationErrors(
                refusals.map { refusal in
                    var error = ConfigurationError(key: key, "\(refusal.reason); expected \(allowed)")
                    error.element = refusal.element
                    return error
                })
        }
        if ConfigurationSetting.byKey[key] == nil { configuration.named[key] = value }
    }

    /// Settings that a running daemon does not take over, besides paths, permissions and sockets: what they size is made at the
    /// start.
    private static let atStart: Set<String> = ["ram.budget", "disk.budget", "disk.segment", "workers.threads"]

    /// Takes the value of one configuration over into another, as a running daemon can. False where that takes a restart.
    func take(from wanted: DaemonConfiguration, into configuration: inout DaemonConfiguration) -> Bool {
        guard let adopt, !ConfigurationSetting.atStart.contains(key), !key.hasPrefix("shared.") else { return false }
        adopt(wanted, &configuration)
        (configuration.origins[key], configuration.named[key]) = (wanted.origins[key], wanted.named[key])
        return true
    }

    /// The value in effect.
    public func value(in configuration: DaemonConfiguration) -> ConfigurationValue { show(configuration) }
}

/// The kinds of settings.
extension ConfigurationSetting {
    typealias Field<Value> = WritableKeyPath<DaemonConfiguration, Value> & Sendable

    init(
        _ key: String, _ allowed: String, absent: ConfigurationValue? = nil, adopt: Adoption? = nil,
        read: @escaping @Sendable (ConfigurationValue, inout DaemonConfiguration) -> String?,
        show: @escaping @Sendable (DaemonConfiguration) -> ConfigurationValue
    ) {
        (self.key, self.allowed, self.absent, self.show, self.adopt) = (key, allowed, absent, show, adopt)
        self.read = { value, configuration in read(value, &configuration).map { [Refusal(reason: $0)] } ?? [] }
    }

    init(
        listOfUsers key: String, adopt: @escaping Adoption,
        read: @escaping @Sendable (ConfigurationValue, inout DaemonConfiguration) -> [Refusal],
        show: @escaping @Sendable (DaemonConfiguration) -> ConfigurationValue
    ) {
        (self.key, self.read, self.show, self.adopt) = (key, read, show, adopt)
        (allowed, absent) = ("a list of names and numbers of users, such as [\"alice\", 1001]", nil)
    }

    static func copy<Value>(_ field: any Field<Value>) -> Adoption {
        { $1[keyPath: field] = $0[keyPath: field] }
    }

    private static func path(
        _ key: String, orEmpty: String? = nil, absent: ConfigurationValue? = nil, _ field: any Field<String>
    ) -> ConfigurationSetting {
        let allowed = "a path as text" + (orEmpty.map { ", or \"\" \($0)" } ?? "")
        return ConfigurationSetting(key, allowed, absent: absent) { value, configuration in
            guard case .text(let path) = value else { return "is \(value.kind)" }
            if path.isEmpty, orEmpty == nil { return "is empty" }
            // What a shell would have made something else of; and what an option takes that was given no value.
            if let first = path.first, "~$".contains(first) { return "\(first) is not expanded here" }
            if path.hasPrefix("-") { return "looks like an option (if it is a path, write ./\(path))" }
            // What stands for bytes that are no text, where they come in by the command line.
            if path.contains("\u{FFFD}") { return "is not UTF-8" }
            configuration[keyPath: field] = path
            return nil
        } show: {
            .text($0[keyPath: field])
        }
    }

    private static func text(
        _ key: String, orEmpty: String? = nil, _ field: any Field<String>,
        refusal: @escaping @Sendable (String) -> String?
    ) -> ConfigurationSetting {
        ConfigurationSetting(key, "text" + (orEmpty.map { ", or \"\" \($0)" } ?? "")) { value, configuration in
            guard case .text(let text) = value else { return "is \(value.kind)" }
            if !text.isEmpty || orEmpty == nil, let reason = refusal(text) { return reason }
            configuration[keyPath: field] = text
            return nil
        } show: {
            .text($0[keyPath: field])
        }
    }

    private static func number(
        _ key: String, _ range: ClosedRange<Int>, absent: ConfigurationValue? = nil, _ field: any Field<Int>
    ) -> ConfigurationSetting {
        let unit =
            key.hasSuffix("_s") ? "number of seconds" : key.hasSuffix("_ms") ? "number of milliseconds" : "number"
        let allowed = "a whole \(unit) from \(range.lowerBound) to \(range.upperBound)"
        return ConfigurationSetting(key, allowed, absent: absent, adopt: copy(field)) { value, configuration in
            guard case .integer(let number) = value else { return "is \(value.kind)" }
            guard range.contains(number) else { return "out of range" }
            configuration[keyPath: field] = number
            return nil
        } show: {
            .integer($0[keyPath: field])
        }
    }

    private static func size(
        _ key: String, _ range: ClosedRange<Int>, orZero: String? = nil, _ field: any Field<Int>
    ) -> ConfigurationSetting {
        let (least, most) = (ByteSize.text(range.lowerBound), ByteSize.text(range.upperBound))
        let allowed = "\(ByteSize.form), from \(least) to \(most)" + (orZero.map { ", or 0 \($0)" } ?? "")
        return ConfigurationSetting(key, allowed, adopt: copy(field)) { value, configuration in
            let bytes: Int
            switch value {
            case .integer(let number): bytes = number
            case .text(let text):
                switch ByteSize.read(text) {
                case .success(let number): bytes = number
                case .failure(let error): return error.reason
                }
            default: return "is \(value.kind)"
            }
            guard range.contains(bytes) || (bytes == 0 && orZero != nil) else { return "out of range" }
            configuration[keyPath: field] = bytes
            return nil
        } show: {
            .bytes($0[keyPath: field])
        }
    }

    private static func mode(_ key: String, _ field: any Field<UInt32>) -> ConfigurationSetting {
        ConfigurationSetting(key, "permissions as text of octal digits, such as \"0660\"") { value, configuration in
            guard case .text(let digits) = value else { return "is \(value.kind)" }
            guard !digits.isEmpty, digits.utf8.allSatisfy({ "01234567".utf8.contains($0) }) else {
                return digits.isEmpty ? "is empty" : "has other characters than the digits 0 to 7"
            }
            guard let mode = UInt32(digits, radix: 8), mode <= 0o777 else { return "is more than 0777" }
            configuration[keyPath: field] = mode
            return nil
        } show: {
            .text("0" + String($0[keyPath: field], radix: 8))
        }
    }

    private static func choice<Choice: RawRepresentable<String> & CaseIterable & Sendable>(
        _ key: String, _ field: any Field<Choice>
    ) -> ConfigurationSetting {
        let choices = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        return ConfigurationSetting(key, "one of " + choices, adopt: copy(field)) { value, configuration in
            guard case .text(let text) = value else { return "is \(value.kind)" }
            guard let choice = Choice(rawValue: text) else { return "unknown" }
            configuration[keyPath: field] = choice
            return nil
        } show: {
            .text($0[keyPath: field].rawValue)
        }
    }
}

/// Values that are kept as something else than they are written.
extension DaemonConfiguration {
    fileprivate var directoryText: String {
        get { directory ?? "" }
        set { directory = newValue.isEmpty ? nil : newValue }
    }

    fileprivate var diskBudgetInEffect: Int {
        get { effectiveDiskBudget }
        set { diskBudget = newValue }
    }

    fileprivate var profilesInEffect: String {
        get { effectiveProfileDirectory ?? "" }
        set { profileDirectory = newValue }
    }
}
