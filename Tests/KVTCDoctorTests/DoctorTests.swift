import FoundationEssentials
import KVTCProtocol
import KVTCSystem
import Testing

@testable import KVTCDoctor

/// Made-up machines: one on which all is well, and what one thing that is not makes of it.
@Suite struct DoctorTests {
    /// A daemon under systemd, seen by root.
    private static var healthy: Scene {
        var scene = Scene()
        scene.caller = .init(uid: 0, name: "root", groups: [0], groupsOfUser: [0])
        scene.socket.path = "/run/kvtcd/kvtcd.sock"
        scene.socket.file = file(.socket, 0o660, owner: 0, group: 990)
        var report = StatusReport()
        report.version = "0.1.0"
        report.tiers.ram.budget = 4 << 30
        report.tiers.ram.pages = 10
        report.tiers.disk.budget = 10 << 30
        report.bytes.written = 0
        report.profiles = [StatusReport.Profile()]
        scene.answer = .status(report)
        var process = Scene.Process()
        (process.pid, process.uid, process.gid, process.threads, process.started) = (17, 990, 990, 30, 1000)
        (process.arguments, process.userMap) = (["kvtcd"], "0 0 4294967295\n")
        process.limits = ["Max open files": 65_536]
        process.sharesProcesses = true
        scene.process = process
        scene.unit = Scene.Unit(
            """
            LoadState=loaded
            MainPID=17
            User=kvtcd
            FileDescriptorStoreMax=64
            NFileDescriptorStore=16
            StateDirectory=kvtcd
            ExecMainStartTimestamp=@1799999000
            ActiveState=active
            Result=success
            """)
        scene.configuration = configuration()
        scene.isDaemonsView = true
        var directory = Scene.Directory()
        (directory.path, directory.file) = ("/var/lib/kvtcd", file(.directory, 0o700, owner: 990, group: 990))
        directory.filesystem = .init(
            kind: "ext4", isReadOnly: false, free: 100 << 30, size: 200 << 30, freeFiles: 10_000)
        directory.segments = .init(count: 2, bytes: 1 << 20, oldest: 1_799_990_000, newest: 1_799_999_900, foreign: [])
        scene.directory = directory
        scene.clock = .init(now: 1_800_000_000, run: 2000, isSynchronised: true)
        scene.groups.machineMemory = 64 << 30
        scene.groups.memory = [.init(16 << 30, source: "/sys/fs/cgroup/kvtcd.slice/memory.max")]
        scene.groups.processors = [.init(8, source: "/sys/fs/cgroup/kvtcd.slice/cpu.max")]
        scene.groups.tasks = [.init(10_000, source: "/sys/fs/cgroup/kvtcd.slice/pids.max")]
        scene.groups.kills = .init(0, source: "/sys/fs/cgroup/kvtcd.slice/memory.events")
        scene.kernel = .init(release: "6.18.4-amd64", sealing: nil, hugePages: "advise", memoryPressure: 0)
        scene.profiles = [.init(path: "/var/lib/kvtcd/profiles/a.safetensors", problem: nil)]
        scene.versions = .init(kvtcctl: "0.1.0", kvtcd: "0.1.0", python: "0.1.0")
        return scene
    }

    private static func file(_ kind: Scene.File.Kind, _ mode: UInt32, owner: UInt32, group: UInt32) -> Scene.File {
        .init(
            kind: kind, mode: mode, owner: owner, group: group, ownerName: "u\(owner)", groupName: "g\(group)",
            changed: 0)
    }

    private static func configuration() -> Scene.Configuration {
        let settings: [(String, Int)] = [
            ("ram.budget", 4 << 30), ("disk.budget", 10 << 30), ("disk.segment", 64 << 20), ("workers.threads", 8),
            ("limits.connections", 256), ("limits.arena_per_user", 1 << 30),
        ]
        return .init(
            settings: settings.map { .init(key: $0.0, value: .number($0.1), place: "/etc/kvtcd/kvtcd.toml:3") })
    }

    /// The findings of a machine that differs in one thing.
    private static func findings(_ change: (inout Scene) -> Void) -> [Finding] {
        var scene = healthy
        change(&scene)
        return Examination(scene).findings
    }

    /// What is not well about it, as `severity check`.
    private static func faults(_ change: (inout Scene) -> Void) -> [String] {
        findings(change).filter { $0.severity != .ok }.map { "\($0.severity.rawValue) \($0.check)" }
    }

    private static func report(_ scene: inout Scene, _ change: (inout StatusReport) -> Void) {
        guard var report = scene.status else { return }
        change(&report)
        scene.answer = .status(report)
    }

    @Test func aMachineOnWhichAllIsWellHasNothingButThat() {
        let findings = Self.findings { _ in }
        #expect(findings.allSatisfy { $0.severity == .ok && $0.means == nil && $0.mend == nil })
        #expect(Set(findings.map(\.check)).count == findings.count && findings.count > 15)
    }

    @Test func whatTheDaemonSaysOfItselfComesFirst() {
        #expect(Self.faults { Self.report(&$0) { $0.state = "stopping" } } == ["note daemon"])
        #expect(Self.faults { Self.report(&$0) { $0.state = "draining" } } == ["note daemon"])
        func shared(_ change: @escaping (inout SharedReport) -> Void) -> [String] {
            Self.faults { scene in
                Self.report(&scene) { report in
                    var shared = SharedReport()
                    shared.servers = [.init(address: "a:1", breaker: "closed", inFlight: 0, bytesOut: 0, bytesIn: 0)]
                    change(&shared)
                    report.shared = shared
                }
            }
        }
        #expect(shared { _ in } == [])
        #expect(shared { $0.servers[0].breaker = "open" } == ["warning shared.server"])
        #expect(shared { $0.pausedFor = "full" } == ["warning shared.write"])
        #expect(shared { $0.faults = [.init(reason: "corrupt", count: 1)] } == ["warning shared.values"])
        #expect(shared { $0.faults = [.init(reason: "timeout", count: 1)] } == [])
        #expect(Self.faults { Self.report(&$0) { $0.state = "degraded" } } == ["problem daemon"])
        #expect(Self.faults { Self.report(&$0) { $0.tiers.ram.refusal = "ENOMEM" } } == ["problem daemon"])
        #expect(Self.faults { Self.report(&$0) { $0.counters.lost = 1 } } == ["warning daemon"])
        #expect(Self.faults { $0.answer = .silent("no answer to hello") } == ["problem daemon"])
        let unable = Self.findings {
            $0.answer = .silent("closed")
            $0.unit?.pid = 0
            $0.unit?.activeState = "failed"
        }
        #expect(unable.first?.found.contains("kvtcd.service is failed") == true)
        #expect(Self.faults { $0.answer = .refused(WireError(.limitExceeded, "full")) } == ["problem daemon"])
    }

    @Test func aDaemonThatIsAwayIsToldApartFromOneThatMayNotBeAsked() {
        func away(_ code: Int32, _ change: (inout Scene) -> Void = { _ in }) -> Finding? {
            Self.findings {
                $0.answer = .nothing(code: code, reason: "errno \(code)")
                change(&$0)
            }.first
        }
        #expect(away(2)?.mend == "systemctl start kvtcd.socket")
        #expect(away(2) { $0.unit = nil }?.mend?.hasPrefix("kvtcd --config") == true)
        #expect(away(111)?.means?.contains("left over") == true)
        #expect(away(111) { $0.unit?.activeState = "failed" }?.mend?.contains("reset-failed") == true)
        #expect(away(13)?.mend?.contains("permissions.socket") == true)
    }

    @Test func faultsOfTheConfigurationCountWhereTheDaemonWouldHaveThem() {
        let fault = Scene.Configuration.Fault(key: "disk.directory", message: "m", text: "t")
        #expect(Self.faults { $0.configuration?.errors = [fault] } == ["problem config"])
        #expect(Self.faults { $0.configuration?.warnings = [fault] } == ["warning config"])
        // Another user may write elsewhere than the daemon does.
        let asOther = Self.faults {
            $0.configuration?.errors = [fault]
            $0.isDaemonsView = false
        }
        #expect(asOther.isEmpty)
        let down = Self.faults {
            $0.configuration?.errors = [fault]
            $0.isDaemonsView = false
            $0.answer = .nothing(code: 111, reason: "")
        }
        #expect(down == ["problem daemon", "note config"])
        #expect(Self.faults { $0.configuration = nil } == ["note config"])
        // systemd made the socket, where the daemon's user may not.
        let ofSocket = Scene.Configuration.Fault(key: "socket.path", message: "m", text: "t")
        #expect(Self.faults { $0.configuration?.errors = [ofSocket] } == [])
        let alone = Self.faults {
            $0.configuration?.errors = [ofSocket]
            ($0.unit, $0.process, $0.answer) = (nil, nil, .nothing(code: 2, reason: ""))
        }
        #expect(alone.contains("problem config"))
        // So it does with the directory, at the first start.
        let before = Self.faults {
            $0.configuration?.errors = [fault]
            $0.configuration?.settings.append(
                .init(key: "disk.directory", value: .text("/var/lib/kvtcd"), place: "f:1"))
            ($0.process, $0.answer) = (nil, .nothing(code: 2, reason: ""))
            $0.directory?.file?.mode = 0o755
        }
        #expect(!before.contains { $0.hasSuffix("config") || $0.hasSuffix("permissions.directory") })
        #expect(Self.faults { Self.report(&$0) { $0.tiers.ram.budget = 2 << 30 } } == ["warning config.applied"])
    }

    @Test func whoMayConnectIsSaid() {
        func asUser(_ change: (inout Scene) -> Void = { _ in }) -> [Finding] {
            Self.findings {
                $0.caller = .init(uid: 1000, name: "ann", groups: [1000], groupsOfUser: [1000])
                change(&$0)
            }.filter { $0.check == "permissions.socket" }
        }
        #expect(asUser().first?.mend == "adduser ann g990   # as root; then log in again")
        #expect(asUser { $0.caller.groups.insert(990) }.first?.severity == .ok)
        #expect(asUser { $0.caller.groupsOfUser.insert(990) }.first?.mend == "log in again, or: newgrp g990")
        #expect(asUser { $0.socket.file?.group = 0 }.first?.mend?.contains("adduser") == false)
        #expect(asUser { $0.socket.file?.mode = 0o666 }.first?.severity == .note)
        #expect(Self.faults { $0.socket.file?.kind = .other } == ["problem permissions.socket"])
    }

    @Test func whatConversationsLeaveBehindIsTheDaemonsAlone() {
        let check = "permissions.directory"
        #expect(Self.faults { $0.directory?.file?.owner = 1000 } == ["problem \(check)"])
        #expect(Self.faults { $0.directory?.file?.mode = 0o720 } == ["problem \(check)"])
        #expect(Self.faults { $0.directory?.file?.mode = 0o755 } == ["warning \(check)"])
    }

    @Test func limitsOfTheProcessAreHeldAgainstWhatItIsToKeep() {
        #expect(Self.faults { $0.process?.limits["Max open files"] = 256 } == ["warning limits.files"])
        #expect(Self.faults { $0.process?.limits["Max address space"] = 5 << 30 } == ["problem limits.memory"])
        #expect(Self.faults { $0.process?.limits["Max file size"] = 1 << 20 } == ["problem limits.memory"])
        #expect(Self.faults { $0.process?.limits["Max locked memory"] = 65_536 } == [])
        #expect(Self.faults { $0.process = nil }.contains("note limits"))
    }

    @Test func controlGroupsAreHeldAgainstBudgets() {
        #expect(Self.faults { $0.groups.memory[0].value = 2 << 30 } == ["problem cgroup.memory"])
        #expect(Self.faults { $0.groups.memory[0].value = 9 << 29 } == ["warning cgroup.memory"])
        #expect(Self.faults { $0.groups.machineMemory = 2 << 30 } == ["problem cgroup.memory"])
        #expect(Self.faults { $0.groups.kills?.value = 3 } == ["problem cgroup.kills"])
        #expect(Self.faults { $0.groups.processors[0].value = 2 } == ["warning cgroup.cpu"])
        #expect(Self.faults { $0.groups.tasks[0].value = 64 } == ["warning cgroup.tasks"])
        #expect(Self.faults { $0.groups = Scene.Groups() }.contains("problem cgroup.memory"))
    }

    @Test func theDiskIsHeldAgainstItsBudget() {
        #expect(Self.faults { $0.directory?.filesystem?.free = 1 << 30 } == ["warning disk.space"])
        #expect(Self.faults { $0.directory?.filesystem?.free = 1 << 20 } == ["problem disk.space"])
        #expect(Self.faults { $0.directory?.filesystem?.freeFiles = 5 } == ["problem disk.space"])
        #expect(Self.faults { $0.directory?.filesystem?.isReadOnly = true } == ["problem disk.filesystem"])
        for kind in ["nfs4", "tmpfs", "overlay", "fuse.sshfs"] {
            #expect(Self.faults { $0.directory?.filesystem?.kind = kind } == ["warning disk.filesystem"])
        }
        #expect(Self.faults { $0.directory?.segments?.foreign = ["core"] } == ["note disk.files"])
        #expect(Self.faults { $0.directory?.segments = nil } == ["note disk.files"])
        let none = Self.faults { scene in
            scene.directory = nil
            Self.report(&scene) { $0.tiers.disk.budget = 0 }
            scene.configuration?.settings.removeAll { $0.key == "disk.budget" }
        }
        #expect(none == ["note disk"])
    }

    @Test func aClockThatIsWrongOrWasSetIsSeen() {
        #expect(Self.faults { $0.clock.now = 1000 } == ["problem clock"])
        #expect(Self.faults { $0.directory?.segments?.newest = 1_800_003_600 } == ["warning clock"])
        #expect(Self.faults { $0.clock.now += 7200 } == ["warning clock"])
        #expect(Self.faults { $0.clock.run += 7200 } == ["warning clock"])
        #expect(Self.faults { $0.clock.isSynchronised = false } == ["note clock"])
        // Without systemd it is the socket that says when the daemon started.
        let own = Self.faults {
            $0.unit = nil
            $0.socket.file = Self.file(.socket, 0o660, owner: 990, group: 990)
            $0.socket.file?.changed = 1_799_990_000
        }
        #expect(own == ["warning clock", "note fdstore"])
    }

    @Test func whatTheKernelLacksIsSaid() {
        #expect(Self.faults { $0.kernel.release = "4.19.0" } == ["problem kernel.release"])
        #expect(Self.faults { $0.kernel.release = "6.1.0-49-amd64" } == ["note kernel.release"])
        #expect(Self.faults { $0.kernel.sealing = "EPERM" } == ["problem kernel.memory"])
        #expect(Self.faults { $0.kernel.hugePages = "never" } == ["note kernel.hugepages"])
        #expect(Self.faults { $0.kernel.memoryPressure = 40 } == ["warning kernel.pressure"])
        #expect(Self.faults { $0.kernel.memoryPressure = nil } == ["note kernel.pressure"])
        #expect(Self.faults { $0.process?.swapped = 1 << 30 } == ["warning kernel.swap"])
    }

    @Test func whatDoesNotOutliveARestartIsSaid() {
        #expect(Self.faults { $0.unit?.storeMax = 4 } == ["warning fdstore"])
        #expect(Self.faults { $0.unit?.stored = 0 } == ["warning fdstore"])
        #expect(Self.faults { $0.unit?.pid = 18 } == ["note fdstore"])
    }

    @Test func usersWithoutANumberAreSeen() {
        for map in ["0 1000 1\n", "0 100000 65536\n"] {
            #expect(Self.faults { $0.process?.userMap = map } == ["problem namespace"])
        }
        #expect(Self.faults { $0.process?.userMap = "0 1000 1\n1 100000 4294967294\n" } == [])
        #expect(Self.faults { $0.process?.userMap = "" } == ["note namespace"])
        #expect(Self.faults { $0.process?.sharesProcesses = false } == ["warning namespace"])
    }

    @Test func profilesAndReleases() {
        #expect(Self.faults { $0.profiles[0].problem = "checksum" } == ["problem profiles"])
        #expect(Self.faults { Self.report(&$0) { $0.profiles[0].problem = "read-only" } } == ["warning profiles"])
        #expect(Self.faults { Self.report(&$0) { $0.profiles = [] } } == ["note profiles"])
        #expect(Self.faults { $0.versions.kvtcd = "0.2.0" } == ["warning versions"])
        #expect(Self.faults { $0.process?.isReplaced = true } == ["warning versions"])
        #expect(Self.faults { $0.versions.python = "0.0.9" } == ["note versions"])
    }

    @Test func kernelTextsAreRead() {
        #expect(Scene.Kernel.chosen("always within_size [advise] never\n") == "advise")
        #expect(Scene.Kernel.chosen("") == "")
        #expect(Scene.Kernel.pressure(["some avg10=1.00 avg60=2.50 avg300=0.10 total=5", "full avg60=9"]) == 2.5)
        let mounts: [Substring] = [
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw", "30 22 0:27 / /srv/data rw shared:5 - nfs4 host:/x rw",
        ]
        #expect(Scene.FileSystem.kind(of: "/srv/data/kvtcd", in: mounts) == "nfs4")
        #expect(Scene.FileSystem.kind(of: "/srv/database", in: mounts) == "ext4")
    }
}
