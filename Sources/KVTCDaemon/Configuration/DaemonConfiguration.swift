import Glibc
import KVTCModel
import KVTCStore
import KVTCSystem
import Logging

/// Everything about a daemon that can be set. `Config/kvtcd.toml` explains each key.
public struct DaemonConfiguration: Sendable, Equatable {
    /// Where the daemon listens, unless the service manager hands it a socket.
    public var socketPath: String
    /// Permissions of the socket file.
    public var socketMode: UInt32 = 0o660
    /// Bytes of RAM for pages.
    public var ramBudget: Int
    /// Where the disk tier lives; nil: RAM only.
    public var directory: String?
    /// Bytes of disk for pages; nil: see ``effectiveDiskBudget``.
    public var diskBudget: Int?
    /// Bytes of one segment file.
    public var segmentBytes: Int = 64 << 20
    /// Where profiles are; nil: `profiles` inside the directory.
    public var profileDirectory: String?
    /// Encode and decode threads.
    public var workers: Int
    /// Seconds without a request after which a session is idle, so that a policy with `near` has its window coded.
    public var nearAfterSeconds = 30
    /// When pages are coded whose sessions do not say.
    public var code = CodingTime.underPressure
    /// RAM in use, in percent of its budget, above which pages that wait are coded.
    public var codeAbovePercent = 80
    /// The least severe level that is logged.
    public var logLevel = Logger.Level.info
    /// Who shares pages, who may see everybody's.
    public var tenants = Tenants()
    /// Sockets of containers, by name: every peer there is the tenant of that name, and no administrator.
    public var containers: [String: String] = [:]
    /// Where machines share pages.
    public var shared = Shared()
    /// What a client may use up.
    public var limits = Limits()

    /// What clients may use up, each with the error that follows when it is more.
    public struct Limits: Sendable, Equatable {
        /// Connections of all users together.
        public var connections = 256
        /// Connections of one user.
        public var connectionsPerUser = 64
        /// Requests of one connection that are not answered yet.
        public var inFlight = 64
        /// Bytes of one request's body.
        public var bodyBytes = 64 << 20
        /// Keys of one request.
        public var keys = 1 << 20
        /// Bytes of all requests of one user that are not answered yet; beyond it they are read later.
        public var inFlightBytesPerUser = 512 << 20
        /// Bytes of one arena.
        public var arenaBytes = 1 << 30
        /// Bytes of all arenas of one user.
        public var arenaBytesPerUser = 4 << 30
        /// Arenas of one connection.
        public var arenasPerConnection = 64
        /// Arenas of one user.
        public var arenasPerUser = 256
        /// Bytes of RAM for one user's pages; 0 for no limit of its own.
        public var ramPerUser = 0
        /// Bytes of disk for one user's pages; 0 for no limit of its own.
        public var diskPerUser = 0
        /// Sessions of one user.
        public var sessionsPerUser = 1024
        /// Leases of one user.
        public var leasesPerUser = 4096
        /// Seconds the longest lease lasts.
        public var leaseSeconds = 600
        /// Sink tokens of a policy.
        public var sinkTokens = 65_536
        /// Window tokens of a policy.
        public var windowTokens = 1 << 20
        /// Protected ranges of a policy.
        public var protectedRanges = 4096
        /// Tokens of a session.
        public var sessionTokens = 1 << 24
        /// Seconds until HELLO.
        public var helloSeconds = 5
        /// Seconds without a request until a connection is closed.
        public var idleSeconds = 604_800
        /// Seconds until a started frame is complete.
        public var frameSeconds = 30
        /// Seconds without progress after which a peer that does not read is given up.
        public var writeSeconds = 30

        /// The limits of a daemon that is told nothing.
        public init() {}
    }

    /// The values of keys that are free names, as they were written.
    var named: [String: ConfigurationValue] = [:]
    /// Where values come from that were set, and what the defaults follow that differ from place to place.
    var origins: [String: ConfigurationOrigin] = [:]
    /// What the defaults follow and the budgets must fit into.
    public let machine: Machine
    /// The user's home directory, if there is one.
    let home: String?

    /// What a daemon does that is told nothing: places by the service manager's or the user's conventions (file-hierarchy(7),
    /// the XDG base directories), budgets and threads by what this process may use of the machine.
    public init(
        environment: [String: String] = [:], isRoot: Bool = geteuid() == 0, machine: Machine = .current()
    ) {
        // As the XDG specification has it, what is empty or relative counts as not set.
        typealias Place = (path: String, origin: ConfigurationOrigin)
        func place(_ variable: String) -> Place? {
            // systemd separates several directories by colons.
            guard var path = environment[variable]?.split(separator: ":").first, path.hasPrefix("/") else { return nil }
            while path.count > 1, path.hasSuffix("/") { path.removeLast() }
            return (String(path), .standard(follows: variable))
        }
        let home = place("HOME") ?? DaemonConfiguration.homeOfUser.map { ($0, .standard(follows: "the user's entry")) }
        let (runtime, state): (Place?, Place?)
        if isRoot || place("STATE_DIRECTORY") != nil {
            runtime = ("/run", .standard(follows: nil))
            state = place("STATE_DIRECTORY") ?? ("/var/lib/kvtcd", .standard(follows: nil))
        } else {
            runtime = place("XDG_RUNTIME_DIR") ?? home.map { ($0.path + "/.cache", $0.origin) }
            state = (place("XDG_STATE_HOME") ?? home.map { ($0.path + "/.local/state", $0.origin) })
                .map { ($0.path + "/kvtcd", $0.origin) }
        }
        (socketPath, origins["socket.path"]) = (runtime.map { $0.path + "/kvtcd/kvtcd.sock" } ?? "", runtime?.origin)
        (directory, origins["disk.directory"]) = (state?.path, state?.origin ?? .standard(follows: "a missing HOME"))
        self.home = home?.path
        self.machine = machine
        if let credentials = place("CREDENTIALS_DIRECTORY") {
            func credential(_ name: String) -> String {
                access("\(credentials.path)/\(name)", F_OK) == 0 ? "\(credentials.path)/\(name)" : ""
            }
            (shared.secretFile, shared.passwordFile) = (credential("shared-secret"), credential("shared-password"))
            for (key, file) in [("secret", shared.secretFile), ("password", shared.passwordFile)] where !file.isEmpty {
                origins["shared.\(key)_file"] = credentials.origin
            }
        }
        // A quarter each for pages and for what clients may make the daemon hold beside them, in whole MiB.
        let quarter = max(1 << 20, (machine.memory.value / 4) & ~0xF_FFFF)
        ramBudget = quarter
        limits.arenaBytesPerUser = min(limits.arenaBytesPerUser, quarter)
        limits.arenaBytes = min(limits.arenaBytes, quarter)
        limits.inFlightBytesPerUser = min(limits.inFlightBytesPerUser, max(limits.bodyBytes, quarter / 2))
        workers = machine.processors.value
        for key in ["ram.budget", "limits.arena", "limits.arena_per_user", "limits.in_flight_bytes_per_user"] {
            origins[key] = .standard(follows: machine.memory.source ?? "the machine's memory")
        }
        origins["workers.threads"] = .standard(follows: machine.processors.source ?? "the machine's processors")
        origins["disk.budget"] = .standard(follows: "ram.budget and the file system")
        origins["profiles.directory"] = .standard(follows: "disk.directory")
    }

    private static var homeOfUser: String? {
        guard let entry = getpwuid(geteuid()) else { return nil }
        return String(cString: entry.pointee.pw_dir)
    }

    /// Where profiles are looked for: as told, else beside the pages; nil when there is neither.
    public var effectiveProfileDirectory: String? { profileDirectory ?? directory.map { $0 + "/profiles" } }

    /// As told, else a quarter more than RAM, so that a stop can keep what RAM holds, and 10 GiB at least; but half of the
    /// directory's file system at most.
    public var effectiveDiskBudget: Int {
        if let diskBudget { return diskBudget }
        guard let directory else { return 0 }
        let wanted = max(10 << 30, ramBudget + ramBudget / 4)
        return min(wanted, DaemonConfiguration.room(directory).map { $0.size / 2 } ?? .max)
    }

    /// What the store is told of it.
    var tiers: StoreConfiguration {
        StoreConfiguration(
            directory: effectiveDiskBudget == 0 ? nil : directory, ramBudget: ramBudget,
            diskBudget: effectiveDiskBudget,
            segmentBytes: segmentBytes, ramPerTenant: limits.ramPerUser, diskPerTenant: limits.diskPerUser)
    }

    /// Bytes of a directory's file system: all, and those that are left for what is in the directory and will be. A directory
    /// that is missing will be on its parent's.
    static func room(_ directory: String) -> (size: Int, free: Int)? {
        var path = directory
        var filesystem = statvfs()
        while statvfs(path, &filesystem) != 0 {
            guard let slash = path.lastIndex(of: "/"), path != "/" else { return nil }
            path = slash == path.startIndex ? "/" : String(path[..<slash])
        }
        // Such as proc has no size to go by.
        guard filesystem.f_blocks > 0 else { return nil }
        func bytes(_ blocks: fsblkcnt_t) -> Int {
            Int(clamping: UInt64(blocks).multipliedReportingOverflow(by: UInt64(filesystem.f_frsize)).partialValue)
        }
        var free = bytes(filesystem.f_bavail)
        if let stream = opendir(directory) {
            defer { closedir(stream) }
            while let entry = readdir(stream) {
                var info = stat()
                let found = withUnsafeBytes(of: &entry.pointee.d_name) { name in
                    fstatat(
                        dirfd(stream), name.assumingMemoryBound(to: CChar.self).baseAddress!, &info, AT_SYMLINK_NOFOLLOW
                    )
                }
                if found == 0, info.st_mode & S_IFMT == S_IFREG { free += Int(info.st_blocks) * 512 }
            }
        }
        return (bytes(filesystem.f_blocks), free)
    }

    /// Sets a key to what an option of the command line was given.
    public mutating func set(_ key: String, to text: String, option: String) throws(ConfigurationError) {
        let origin = ConfigurationOrigin.option(option, text: text)
        do throws(ConfigurationError) {
            guard let setting = ConfigurationSetting.named(key) else {
                throw ConfigurationError(key: key, "unknown key")
            }
            guard .text(text) != setting.absent else { return }
            do throws(ConfigurationErrors) { try setting.apply(.text(text), to: &self) } catch { throw error.all[0] }
        } catch {
            throw ConfigurationError(key: error.key, error.message, origin: origin)
        }
        origins[key] = origin
    }

    /// Where the value of a key comes from.
    func origin(of key: String) -> ConfigurationOrigin { origins[key] ?? .standard(follows: nil) }

    /// All settings: their keys, the values in effect and where these come from.
    public var settings: [(key: String, value: ConfigurationValue, origin: ConfigurationOrigin)] {
        let named = named.keys.sorted().compactMap(ConfigurationSetting.named)
        return (ConfigurationSetting.all + named).map { ($0.key, $0.value(in: self), origin(of: $0.key)) }
    }

    /// All settings as the lines of a file that says the same, and where the values come from.
    public var lines: [(assignment: String, place: String)] {
        settings.map { ("\(ConfigurationSetting.spelled($0.key)) = \($0.value.toml)", $0.origin.place) }
    }
}
