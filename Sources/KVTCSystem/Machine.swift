import CLinux
import Glibc

/// How large the machine is for this process: what the hardware has, or less where a control group or a resource limit
/// says so.
public struct Machine: Sendable, Equatable {
    /// An amount, and what sets it.
    public struct Limit: Sendable, Equatable {
        /// Bytes, or processors.
        public var value: Int
        /// The file or the limit that it comes from, such as `/sys/fs/cgroup/kvtcd.slice/memory.max`; nil for the hardware.
        public var source: String?

        /// An amount; without a source it is the hardware's.
        public init(_ value: Int, source: String? = nil) { (self.value, self.source) = (value, source) }
    }

    /// Bytes of memory.
    public var memory: Limit
    /// Processors' worth of time, rounded up; at least 1.
    public var processors: Limit
    /// Which resource limit leaves nothing for pages beside what the process itself takes, and how much that is; nil for none.
    public var shortage: String?
    /// Bytes that a file may have, also one of memory; nil for no limit.
    public var largestFile: Int?

    /// A machine of a size.
    public init(memory: Limit, processors: Limit) { (self.memory, self.processors) = (memory, processors) }

    /// What this process may use now. `root` stands before `/proc` and `/sys`.
    public static func current(root: String = "") -> Machine {
        let groups = ControlGroups(root: root)
        var memory = [Limit(sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)))]
        // The affinity mask has what cpusets leave.
        let processors = least([Limit(max(1, Int(clinux_processors())))] + groups.processors)
        let own = OwnMemory(threads: processors.value)
        var shortage: String?
        // Pages are in address space, but not in what RLIMIT_DATA counts: memory files are shared.
        let limits = [
            ("RLIMIT_AS", RLIMIT_AS, own.mapped, true), ("RLIMIT_DATA", RLIMIT_DATA, own.data, false),
        ]
        for (name, kind, need, keepsPages) in limits {
            guard let allowed = resourceLimit(kind) else { continue }
            if keepsPages { memory.append(Limit(max(0, allowed - need), source: name)) }
            if allowed < need + (keepsPages ? 16 << 20 : 0) {
                shortage =
                    "\(name) allows \(allowed >> 20) MiB, and the daemon itself takes \(need >> 20) MiB: raise it"
            }
        }
        memory += groups.memory
        var machine = Machine(memory: least(memory), processors: processors)
        machine.shortage = shortage
        machine.largestFile = resourceLimit(RLIMIT_FSIZE)
        return machine
    }

    /// Keeps malloc from reserving address space for every thread, where that is limited; before the first thread starts.
    public static func saveAddressSpace() {
        if resourceLimit(RLIMIT_AS) != nil { clinux_share_heap() }
    }

    /// What a resource limit allows; nil for everything.
    private static func resourceLimit(_ kind: __rlimit_resource) -> Int? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(kind.rawValue), &limit) == 0, limit.rlim_cur != rlim_t.max else {
            return nil
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// The first of the least.
    private static func least(_ limits: [Limit]) -> Limit { limits.min { $0.value < $1.value }! }
}

/// Bytes that the process takes for itself once it serves: what is mapped now, stacks, the body of a large request.
private struct OwnMemory {
    let mapped, data: Int
    private static let request = 64 << 20
    private static let stacks = 48 << 20

    init(threads: Int) {
        // Of proc_pid_statm(5): in pages the whole size first, data and stacks sixth.
        let fields = SmallFile.lines("/proc/self/statm").first?.split(separator: " ").compactMap { Int($0) } ?? []
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let more = OwnMemory.request + OwnMemory.stacks + threads * (4 << 20)
        mapped = (fields.first ?? 0) * page + more
        data = (fields.count > 5 ? fields[5] : 0) * page + more
    }
}

/// What the control groups of this process allow, of version 2 and 1: each group's limit holds for all below it, so
/// those of the ancestors count as well. See cgroups(7) and the kernel's cgroup-v2.rst.
package struct ControlGroups {
    private let root: String
    /// Directories of version 2, from the process's own group upwards.
    package let unified: [String]
    private let memoryGroups: [String]
    private let processorGroups: [String]

    /// - Parameter process: whose groups; another one's as this process sees them.
    package init(root: String = "", process: String = "self") {
        self.root = root
        let mounts = SmallFile.lines(root + "/proc/self/mountinfo").compactMap(Mount.init)
        var paths: [(controllers: [Substring], path: String)] = []
        for line in SmallFile.lines(root + "/proc/\(process)/cgroup") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            if parts.count == 3 { paths.append((parts[1].split(separator: ","), String(parts[2]))) }
        }
        func groups(_ type: Substring, _ controller: Substring?) -> [String] {
            guard
                let mount = mounts.first(where: { mount in
                    mount.type == type && controller.map(mount.options.contains) ?? true
                }),
                let own = paths.first(where: { controller.map($0.controllers.contains) ?? $0.controllers.isEmpty })
            else { return [] }
            return mount.groups(upFrom: own.path)
        }
        unified = groups("cgroup2", nil)
        memoryGroups = groups("cgroup", "memory")
        processorGroups = groups("cgroup", "cpu")
    }

    /// Limits of memory, in bytes. Above `memory.high` everything stalls, which for a cache is as bad as the end.
    package var memory: [Machine.Limit] {
        let files =
            unified.flatMap { [$0 + "/memory.max", $0 + "/memory.high"] }
            + memoryGroups.map { $0 + "/memory.limit_in_bytes" }
        return files.compactMap { file in numbers(file).first.map { Machine.Limit($0, source: file) } }
    }

    /// Quotas of processor time, in processors, rounded up.
    package var processors: [Machine.Limit] {
        let current = unified.map { (file: $0 + "/cpu.max", numbers: numbers($0 + "/cpu.max")) }
        let former = processorGroups.map { group in
            let quota = group + "/cpu.cfs_quota_us"
            return (file: quota, numbers: numbers(quota) + numbers(group + "/cpu.cfs_period_us"))
        }
        return (current + former).compactMap { file, numbers in
            guard numbers.count == 2, numbers[0] > 0, numbers[1] > 0 else { return nil }
            return Machine.Limit((numbers[0] - 1) / numbers[1] + 1, source: file)
        }
    }

    /// The numbers in a file up to the first word that is none: `max` and -1 stand for no limit.
    private func numbers(_ file: String) -> [Int] {
        let words = SmallFile.lines(root + file).first?.split(separator: " ") ?? []
        return Array(words.map { Int($0) }.prefix { $0 != nil && $0! >= 0 }.compactMap(\.self))
    }
}

/// A mounted hierarchy of control groups: a line of proc_pid_mountinfo(5).
private struct Mount {
    var type: Substring
    var options: [Substring]
    /// The group that the mount point shows.
    var group: String
    var point: String

    init?(_ line: Substring) {
        let fields = line.split(separator: " ")
        guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count > dash + 3 else { return nil }
        type = fields[dash + 1]
        options = fields[dash + 3].split(separator: ",")
        (group, point) = (String(fields[3]), String(fields[4]))
    }

    /// The directories of a group and its ancestors, as far as they are mounted. A path outside of what is mounted, as a
    /// container sees its host's, leaves the mount point itself: the container's own group.
    func groups(upFrom path: String) -> [String] {
        let top = group == "/" ? "" : group
        var below = path.hasPrefix(top + "/") ? path.dropFirst(top.count).split(separator: "/") : []
        if below.contains("..") { below = [] }
        return (0...below.count).reversed().map { count in
            below.prefix(count).reduce(point) { $0 + "/" + $1 }
        }
    }
}
