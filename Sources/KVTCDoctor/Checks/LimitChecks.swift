import KVTCSystem

// What the daemon's process, and the control groups that it is in, may use.
extension Scene {
    /// Bytes beside pages and arenas that profiles, stacks and work space take.
    private static let ownMemory = 1 << 30
    private static let edit = "systemctl edit kvtcd"

    var limitFindings: [Finding] {
        guard let process else {
            return [
                .unseen(
                    "limits", at: "/proc/PID/limits", "the daemon's process",
                    mend: status == nil
                        ? "start the daemon" : "run kvtcctl doctor where the daemon runs, outside of containers")
            ]
        }
        return [filesFinding(process), memoryFinding(process)]
    }

    private func filesFinding(_ process: Process) -> Finding {
        let place = "/proc/\(process.pid)/limits"
        guard let limit = process.limits["Max open files"] else {
            return .ok("limits.files", at: place, "open files are not limited")
        }
        let segments = (diskBudget ?? 0) / max(1, configuration?.number("disk.segment") ?? 64 << 20) + 2
        let connections = configuration?.number("limits.connections") ?? 256
        // Half of what segments and the daemon's own leave is for connections, half for arenas.
        let need = segments + 128 + 2 * connections + connections / 2
        let found = "\(limit) open files; \(need) are for \(segments) segments and \(connections) connections"
        guard limit < need else { return .ok("limits.files", at: place, found) }
        return .warning(
            "limits.files", at: place, found,
            means: "Fewer clients than limits.connections can connect: the rest get limitExceeded.",
            mend: "\(Scene.edit)   # [Service] LimitNOFILE=\(need * 2), then: systemctl restart kvtcd")
    }

    private func memoryFinding(_ process: Process) -> Finding {
        let place = "/proc/\(process.pid)/limits"
        let arenas = configuration?.number("limits.arena_per_user") ?? 0
        let budget = ramBudget ?? 0
        // Of `Max locked memory` nothing depends: the daemon locks none.
        for (name, option, need) in [
            ("Max address space", "LimitAS", budget + arenas + Scene.ownMemory),
            ("Max data size", "LimitDATA", Scene.ownMemory / 4),
            ("Max file size", "LimitFSIZE", min(budget, 256 << 20)),
        ] {
            guard let limit = process.limits[name], limit < need else { continue }
            return .problem(
                "limits.memory", at: place,
                "\(name) is \(ByteSize.rounded(limit)), and \(ByteSize.rounded(need)) are needed",
                means: "Memory for pages is refused before ram.budget is reached.",
                mend: "\(Scene.edit)   # [Service] \(option)=infinity, then: systemctl restart kvtcd")
        }
        return .ok(
            "limits.memory", at: place,
            "address space, data and file size leave room (it locks no memory, so that limit is nothing to it)")
    }

    var groupFindings: [Finding] {
        guard process != nil else { return [] }
        return [groupMemoryFinding, killsFinding, processorsFinding, tasksFinding].compactMap(\.self)
    }

    private var groupMemoryFinding: Finding? {
        guard let budget = ramBudget else { return nil }
        let hardware = Machine.Limit(groups.machineMemory, source: "the machine's memory")
        guard let least = (groups.memory + [hardware]).min(by: { $0.value < $1.value }) else { return nil }
        let place = least.source ?? ""
        let need = budget + Scene.ownMemory
        let used = groups.memoryUsed.map { ", \(ByteSize.rounded($0)) in use" } ?? ""
        let found =
            "\(ByteSize.rounded(least.value)) allowed\(used); ram.budget is \(ByteSize.rounded(budget)), and about "
            + "1GiB beside it for profiles and work"
        let isGroup = place.hasPrefix("/")
        let raise = isGroup ? "systemctl set-property kvtcd.slice MemoryMax=\((need >> 30) + 1)G   # or " : ""
        let lower =
            "lower ram.budget in kvtcd.toml to \(ByteSize.text(max(1 << 20, max(least.value - Scene.ownMemory, least.value / 4) & ~0xF_FFFF)))"
        if budget > least.value {
            return .problem(
                "cgroup.memory", at: place, found,
                means: "The kernel ends the daemon, or something else, once RAM fills up.",
                mend: raise + lower)
        }
        if need > least.value {
            return .warning(
                "cgroup.memory", at: place, found,
                means: "Close to the limit everything stalls, or the kernel ends the daemon.",
                mend: raise + lower)
        }
        return .ok("cgroup.memory", at: place, found)
    }

    private var killsFinding: Finding? {
        guard let kills = groups.kills else { return nil }
        let place = kills.source ?? ""
        guard kills.value > 0 else {
            return .ok("cgroup.kills", at: place, "no process of the group was ended for want of memory")
        }
        return .problem(
            "cgroup.kills", at: place, "\(kills.value) processes of the group were ended for want of memory",
            means: "The limit is too small for what the daemon was told to keep.",
            mend: "journalctl -k -g oom-kill; then raise MemoryMax of kvtcd.slice, or lower ram.budget")
    }

    private var processorsFinding: Finding? {
        guard let threads = configuration?.number("workers.threads"),
            let least = groups.processors.min(by: { $0.value < $1.value })
        else { return nil }
        let found = "\(least.value) processors' worth of time; \(threads) threads decode and as many encode"
        guard threads > least.value else { return .ok("cgroup.cpu", at: least.source ?? "", found) }
        return .warning(
            "cgroup.cpu", at: least.source ?? "", found,
            means: "Threads use the quota up early in each period and all wait for the next: pulls stall.",
            mend: "set workers.threads = 0 in kvtcd.toml, which follows the quota")
    }

    private var tasksFinding: Finding? {
        guard let process, let least = groups.tasks.min(by: { $0.value < $1.value }) else { return nil }
        let connections = configuration?.number("limits.connections") ?? 256
        // Two or three threads a connection.
        let need = process.threads + 2 * connections
        let found = "\(least.value) tasks allowed, \(process.threads) there, up to \(need) with every connection"
        guard least.value < need else { return .ok("cgroup.tasks", at: least.source ?? "", found) }
        return .warning(
            "cgroup.tasks", at: least.source ?? "", found, means: "Connections are refused when no thread can be made.",
            mend: "\(Scene.edit)   # [Service] TasksMax=\(need * 2), then: systemctl restart kvtcd")
    }
}
