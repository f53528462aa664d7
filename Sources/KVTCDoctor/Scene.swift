// What is read, field by field; comments say what names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVTCProtocol
import KVTCSystem

/// What an examination goes by: the daemon, its configuration and the machine, as they were read. What could not be read is nil.
public struct Scene: Sendable {
    /// Who looks.
    public struct Caller: Sendable {
        public var uid: UInt32 = 0
        public var name = ""
        /// Groups that the process has, and those that the user has by the machine's tables.
        public var groups: Set<UInt32> = []
        public var groupsOfUser: Set<UInt32> = []
    }

    /// The daemon's socket.
    public struct Socket: Sendable {
        public var path = ""
        /// Nil where there is nothing, or nothing that the caller may see.
        public var file: File?
        /// Why there is no file to see.
        public var problem = ""
    }

    /// A file or directory.
    public struct File: Sendable {
        public enum Kind: Sendable { case socket, directory, other }
        public var kind = Kind.other
        public var mode: UInt32 = 0
        public var owner: UInt32 = 0, group: UInt32 = 0
        public var ownerName = "", groupName = ""
        /// Seconds since 1970 at which it was last changed.
        public var changed = 0
    }

    /// What came of asking for the daemon's status.
    public enum Answer: Sendable {
        case status(StatusReport)
        case refused(WireError)
        /// Nothing listens there, with the kernel's error.
        case nothing(code: Int32, reason: String)
        /// Something listens, and does not answer as a daemon does.
        case silent(String)
    }

    /// The daemon's process.
    public struct Process: Sendable {
        public var pid: Int32 = 0
        public var uid: UInt32 = 0, gid: UInt32 = 0
        public var arguments: [String] = []
        /// Soft limits by the kernel's names for them, such as `Max open files`; those that are unlimited are missing.
        public var limits: [String: Int] = [:]
        public var threads = 0
        /// Bytes of it that are in swap.
        public var swapped = 0
        /// Seconds of the machine's run at which it started.
        public var started = 0.0
        /// The program's file, and whether that is another one by now; nil for who may not see.
        public var program: String?
        public var isReplaced = false
        public var userMap = ""
        /// Whether it is in the same namespace of processes as the caller; nil for who may not see.
        public var sharesProcesses: Bool?
    }

    /// What the service manager says of its unit.
    public struct Unit: Sendable {
        public var name = "kvtcd.service"
        public var isLoaded = false
        public var pid: Int32 = 0
        public var user = ""
        public var storeMax = 0, stored = 0
        public var stateDirectory = ""
        /// Seconds since 1970 at which its process started, as they were counted then; 0: never.
        public var started = 0
        public var activeState = "", result = ""
    }

    /// What `kvtcd --check-config --json` says.
    public struct Configuration: Decodable, Sendable {
        public struct Setting: Decodable, Sendable {
            public enum Value: Decodable, Sendable {
                case number(Int), text(String), other

                public init(from decoder: any Decoder) throws {
                    let container = try decoder.singleValueContainer()
                    if let number = try? container.decode(Int.self) {
                        self = .number(number)
                    } else if let text = try? container.decode(String.self) {
                        self = .text(text)
                    } else {
                        self = .other
                    }
                }
            }
            public var key: String, value: Value, place: String
        }
        public struct Fault: Decodable, Sendable { public var key: String, message: String, text: String }
        public var errors: [Fault] = [], warnings: [Fault] = []
        public var settings: [Setting] = []

        func number(_ key: String) -> Int? {
            if case .number(let value)? = settings.first(where: { $0.key == key })?.value { value } else { nil }
        }

        func text(_ key: String) -> String? {
            if case .text(let value)? = settings.first(where: { $0.key == key })?.value { value } else { nil }
        }
    }

    /// The directory of the disk tier.
    public struct Directory: Sendable {
        public var path = ""
        public var file: File?
        public var problem = ""
        public var filesystem: FileSystem?
        /// Of its segment files; nil for who may not list them.
        public var segments: Segments?
    }

    /// The file system that a directory is on.
    public struct FileSystem: Sendable {
        /// As /proc/self/mountinfo names it.
        public var kind = ""
        public var isReadOnly = false
        public var free = 0, size = 0
        /// Files that may still be made; nil where there is no such limit.
        public var freeFiles: Int?
    }

    /// Segment files, with stamps in seconds since 1970.
    public struct Segments: Sendable {
        public var count = 0, bytes = 0
        public var oldest = 0, newest = 0
        /// Other files than the daemon's.
        public var foreign: [String] = []
    }

    /// Clocks, read at one time.
    public struct Clock: Sendable {
        /// Seconds since 1970, and seconds that the machine runs, sleep included.
        public var now = 0, run = 0.0
        /// Whether the kernel's clock follows a source of time; nil where that cannot be told.
        public var isSynchronised: Bool?
    }

    /// The control groups that the daemon is in.
    public struct Groups: Sendable {
        public var memory: [Machine.Limit] = [], processors: [Machine.Limit] = []
        public var tasks: [Machine.Limit] = []
        /// Bytes that the group with the least limit of memory has in use.
        public var memoryUsed: Int?
        /// Times that the kernel ended a process of the group for want of memory, and where that stands.
        public var kills: Machine.Limit?
        public var machineMemory = 0
    }

    /// What the kernel offers.
    public struct Kernel: Sendable {
        public var release = ""
        /// The error of making a sealed memory file; nil for none.
        public var sealing: String?
        /// The choice in brackets of `shmem_enabled`; empty where huge pages are not there.
        public var hugePages = ""
        /// Percent of the last minute in which something waited for memory; nil where the kernel does not tell.
        public var memoryPressure: Double?
    }

    /// A profile in the daemon's directory.
    public struct ProfileFile: Sendable {
        public var path = ""
        /// Why it is of no use; nil where it is good.
        public var problem: String?
    }

    /// Releases; nil where there is none, or none that could be asked.
    public struct Versions: Sendable {
        public var kvtcctl = ""
        public var kvtcd: String?
        public var python: String?
    }

    public var caller = Caller()
    public var socket = Socket()
    public var answer = Answer.nothing(code: 0, reason: "")
    public var process: Process?
    public var unit: Unit?
    public var configuration: Configuration?
    /// Why there is no configuration.
    public var configurationProblem = ""
    /// What it was read from, as a command to repeat that.
    public var configurationCommand = ""
    /// Whether the check ran as the daemon's user, so that what it says of permissions holds.
    public var isDaemonsView = false
    public var directory: Directory?
    public var clock = Clock()
    public var groups = Groups()
    public var kernel = Kernel()
    public var profiles: [ProfileFile] = []
    public var versions = Versions()

    public init() {}

    /// The daemon's report, if it gave one.
    var status: StatusReport? { if case .status(let report) = answer { report } else { nil } }

    /// Bytes of RAM for pages: as the daemon runs with, else as it would.
    var ramBudget: Int? {
        // A tenant's report has the tenant's limit.
        (isAdministrator ? status?.tiers.ram.budget : nil) ?? configuration?.number("ram.budget")
    }

    var diskBudget: Int? {
        (isAdministrator ? status?.tiers.disk.budget : nil) ?? configuration?.number("disk.budget")
    }

    /// Whether the daemon told the caller what it tells administrators only.
    var isAdministrator: Bool { status?.bytes.written != nil }

    /// Whether systemd makes the disk tier's directory the daemon's when it starts it.
    var isDirectoryToCome: Bool {
        guard process == nil, let unit, unit.isLoaded, !unit.stateDirectory.isEmpty else { return false }
        return configuration?.text("disk.directory") == "/var/lib/" + unit.stateDirectory
    }

    var isRoot: Bool { caller.uid == 0 }
}
