import Foundation
import KVTCSystem
import TestSupport
import Testing

/// How large the machine is under control groups, of which the tests write what the kernel would show.
@Suite struct MachineTests {
    private let root: TemporaryDirectory

    init() throws { root = try TemporaryDirectory() }

    private func write(_ path: String, _ text: String) throws {
        let file = URL(fileURLWithPath: root.path + path)
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data((text + "\n").utf8).write(to: file)
    }

    /// A process in a group, as it sees itself, and what is mounted.
    private func write(groups: String, mounts: String) throws {
        try write("/proc/self/cgroup", groups)
        try write("/proc/self/mountinfo", "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n" + mounts)
    }

    private var machine: Machine { Machine.current(root: root.path) }

    private static let unified = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"

    @Test func withoutControlGroupsTheHardwareCounts() {
        #expect(machine.memory.value > 64 << 20)
        #expect(machine.memory.source == nil && machine.processors.source == nil)
        #expect(machine.processors.value >= 1)
        #expect(Machine.current().memory.value <= machine.memory.value)
    }

    @Test(arguments: [
        ("max", "max", "64000000", "/sys/fs/cgroup/kvtcd.slice/memory.max"),
        ("32000000", "max", "64000000", "/sys/fs/cgroup/kvtcd.slice/kvtcd.service/memory.max"),
        ("max", "16000000", "64000000", "/sys/fs/cgroup/kvtcd.slice/kvtcd.service/memory.high"),
        ("96000000", "96000000", "64000000", "/sys/fs/cgroup/kvtcd.slice/memory.max"),
    ])
    func theLeastLimitOfAllGroupsAboveCounts(own: String, high: String, slice: String, source: String) throws {
        try write(groups: "0::/kvtcd.slice/kvtcd.service", mounts: MachineTests.unified)
        try write("/sys/fs/cgroup/kvtcd.slice/kvtcd.service/memory.max", own)
        try write("/sys/fs/cgroup/kvtcd.slice/kvtcd.service/memory.high", high)
        try write("/sys/fs/cgroup/kvtcd.slice/memory.max", slice)
        let least = [own, high, slice].compactMap { Int($0) }.min()!
        #expect(machine.memory == Machine.Limit(least, source: source))
    }

    @Test func inAContainerTheMountPointIsTheOwnGroup() throws {
        try write(groups: "0::/", mounts: MachineTests.unified)
        try write("/sys/fs/cgroup/memory.max", "536870912")
        #expect(machine.memory == Machine.Limit(512 << 20, source: "/sys/fs/cgroup/memory.max"))
    }

    // Without a namespace of its own a container sees the host's path, and of the host's groups only its own.
    @Test(arguments: ["0::/docker/abc", "0::/../abc", "0::/elsewhere"])
    func onlyWhatIsMountedIsSeen(groups: String) throws {
        let mount = "30 22 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw"
        try write(groups: groups, mounts: mount)
        try write("/sys/fs/cgroup/memory.max", "536870912")
        #expect(machine.memory.value == 512 << 20)
    }

    @Test(arguments: [("50000 100000", 1), ("100000 100000", 1), ("100001 100000", 2), ("1 1000000", 1)])
    func aQuotaOfProcessorsIsRoundedUp(quota: String, processors: Int) throws {
        try write(groups: "0::/a/b", mounts: MachineTests.unified)
        try write("/sys/fs/cgroup/a/cpu.max", quota)
        try write("/sys/fs/cgroup/a/b/cpu.max", "max 100000")
        #expect(machine.processors.value == min(processors, Machine.current().processors.value))
        if machine.processors.value == 1, Machine.current().processors.value > 1 {
            #expect(machine.processors.source == "/sys/fs/cgroup/a/cpu.max")
        }
    }

    @Test func versionOneCountsAsWell() throws {
        try write(
            groups: "9:name=systemd:/\n4:memory:/m\n1:cpu,cpuacct:/c/d\n0::/",
            mounts: """
                32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
                35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
                41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
                """)
        try write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
        try write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "16777216")
        try write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "20000")
        try write("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000")
        try write("/sys/fs/cgroup/cpu/c/d/cpu.cfs_quota_us", "-1")
        try write("/sys/fs/cgroup/cpu/c/d/cpu.cfs_period_us", "100000")
        #expect(machine.memory == Machine.Limit(16 << 20, source: "/sys/fs/cgroup/memory/m/memory.limit_in_bytes"))
        #expect(machine.processors.value == 1)
    }

    @Test(arguments: ["", "x", "-5", "99999999999999999999", "max max", "0 0"])
    func whatTheKernelWouldNotWriteIsNoLimit(text: String) throws {
        try write(groups: "0::/", mounts: MachineTests.unified + "\ngarbage - \n - - -\n")
        try write("/sys/fs/cgroup/cpu.max", text)
        if text != "0 0" { try write("/sys/fs/cgroup/memory.max", text) }
        #expect(machine.memory.source == nil && machine.processors.source == nil)
    }
}
