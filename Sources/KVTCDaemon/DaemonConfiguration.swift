import Glibc
import KVTCSystem

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
    /// The least severe level that is logged: trace, debug, info, notice, warning, error or critical.
    public var logLevel = "info"
    /// Who shares pages, who may see everybody's.
    public var tenants = Tenants()
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

    /// What a daemon does that is told nothing: places by the service manager's or the user's conventions, a quarter of
    /// the memory, a thread per processor.
    public init(environment: [String: String] = [:], isRoot: Bool = geteuid() == 0) {
        let home = environment["HOME"] ?? "/tmp"
        if isRoot || environment["STATE_DIRECTORY"] != nil {
            socketPath = "/run/kvtcd/kvtcd.sock"
            directory = environment["STATE_DIRECTORY"] ?? "/var/lib/kvtcd"
        } else {
            socketPath = (environment["XDG_RUNTIME_DIR"] ?? "\(home)/.cache") + "/kvtcd/kvtcd.sock"
            directory = (environment["XDG_STATE_HOME"] ?? "\(home)/.local/state") + "/kvtcd"
        }
        ramBudget = Machine.memoryBytes / 4
        workers = Machine.processors
    }

    /// Where profiles are looked for: as told, else beside the pages; nil when there is neither.
    public var effectiveProfileDirectory: String? { profileDirectory ?? directory.map { $0 + "/profiles" } }

    /// As told, else 10 GiB, or half of the directory's file system where that is less.
    public var effectiveDiskBudget: Int {
        if let diskBudget { return diskBudget }
        guard let directory else { return 0 }
        return min(10 << 30, DaemonConfiguration.fileSystemBytes(directory).map { $0 / 2 } ?? .max)
    }

    private static func fileSystemBytes(_ directory: String) -> Int? {
        var filesystem = statvfs()
        guard statvfs(directory, &filesystem) == 0 else { return nil }
        let (size, overflow) = Int(filesystem.f_blocks).multipliedReportingOverflow(by: Int(filesystem.f_frsize))
        return overflow ? nil : size
    }

    /// Checks what no single key shows: that the machine is large enough and that the directory can be written to
    /// (it is made when missing). The key at fault is named.
    /// - Parameter isTrial: leave no directory behind that was not there before.
    public func validate(isTrial: Bool = false) throws(ConfigurationError) {
        let memory = Machine.memoryBytes
        guard ramBudget <= memory else {
            throw ConfigurationError(
                key: "ram.budget", "\(ramBudget) bytes are more than the \(memory) bytes of this machine")
        }
        guard ramBudget >= 1 << 20 else { throw ConfigurationError(key: "ram.budget", "at least 1MiB is needed") }
        if let directory {
            let made = try DaemonConfiguration.makeWritable(directory)
            defer { if isTrial { for path in made.reversed() { rmdir(path) } } }
            if let diskBudget, let size = DaemonConfiguration.fileSystemBytes(directory), diskBudget > size {
                throw ConfigurationError(
                    key: "disk.budget", "\(diskBudget) bytes are more than the \(size) bytes of the file system")
            }
        }
        guard !socketPath.isEmpty else { throw ConfigurationError(key: "socket.path", "a path is needed") }
        guard socketPath.utf8.count <= 107 else {
            throw ConfigurationError(key: "socket.path", "longer than the 107 bytes a socket address holds")
        }
    }

    /// Returns the directories that it made.
    private static func makeWritable(_ path: String) throws(ConfigurationError) -> [String] {
        var made: [String] = []
        var partial = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            partial += "/" + part
            if mkdir(partial, 0o700) == 0 {
                made.append(partial)
            } else if errno != EEXIST {
                throw ConfigurationError(
                    key: "disk.directory", "cannot make \(partial): \(String(cString: strerror(errno)))")
            }
        }
        // Asking by doing: access() would answer for root what a read-only file system refuses.
        let probe = "\(path)/.write-test.\(getpid())"
        let descriptor = open(probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw ConfigurationError(
                key: "disk.directory", "\(path) is not writable: \(String(cString: strerror(errno)))")
        }
        close(descriptor)
        unlink(probe)
        return made
    }
}

/// What is wrong with a configuration, and where.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The file, empty when the value did not come from one.
    public var file = ""
    /// The line, from 1; 0 when unknown.
    public var line = 0
    /// The column, from 1; 0 when unknown.
    public var column = 0
    /// The dotted key at fault; empty for a file that cannot be read as TOML at all.
    public var key: String
    /// What is wrong.
    public var message: String

    /// An error about a key.
    public init(key: String, _ message: String) {
        self.key = key
        self.message = message
    }

    /// `file:line:column: key: message`, as compilers write it.
    public var description: String {
        var parts: [String] = []
        if !file.isEmpty { parts.append(line > 0 ? "\(file):\(line):\(column)" : file) }
        if !key.isEmpty { parts.append(key) }
        return (parts + [message]).joined(separator: ": ")
    }
}
