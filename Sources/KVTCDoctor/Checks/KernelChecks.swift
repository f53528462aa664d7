import KVTCSystem

// The kernel, what keeps memory over a restart, and namespaces.
extension Scene {
    var kernelFindings: [Finding] {
        [releaseFinding, sealingFinding, hugePagesFinding, pressureFinding, swapFinding].compactMap(\.self)
    }

    private var releaseFinding: Finding {
        let numbers = kernel.release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
        let (major, minor) = (numbers.first ?? 0, numbers.count > 1 ? numbers[1] : 0)
        func isAtLeast(_ wanted: (Int, Int)) -> Bool { (major, minor) >= wanted }
        let found = "Linux \(kernel.release)"
        if !isAtLeast((5, 3)) {
            return .problem(
                "kernel.release", at: "uname", found,
                means: "Peers are told apart by process descriptors, which Linux has since 5.3.",
                mend: "upgrade the kernel")
        }
        guard !isAtLeast((6, 12)) else { return .ok("kernel.release", at: "uname", found) }
        return .note(
            "kernel.release", at: "uname", found,
            means: "Before 6.12 threads cannot ask for short turns: pulls wait longer where coders are busy.")
    }

    private var sealingFinding: Finding {
        guard let problem = kernel.sealing else {
            return .ok("kernel.memory", at: "memfd_create, F_ADD_SEALS", "memory files can be made and sealed")
        }
        return .problem(
            "kernel.memory", at: "memfd_create, F_ADD_SEALS", "no sealed memory file can be made: \(problem)",
            means: "Pages and shared memory of clients lie in such files.",
            mend: "allow memfd_create where a sandbox forbids it; sysctl vm.memfd_noexec must not be 2 for old kernels")
    }

    private var hugePagesFinding: Finding {
        let place = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
        if ["always", "within_size", "advise", "force"].contains(kernel.hugePages) {
            return .ok("kernel.hugepages", at: place, "\(kernel.hugePages): memory files get huge pages")
        }
        return .note(
            "kernel.hugepages", at: place, kernel.hugePages.isEmpty ? "not there" : kernel.hugePages,
            means: "Memory files get pages of 4 KiB, of which there are 512 times as many to map.",
            mend: kernel.hugePages.isEmpty
                ? nil : "echo advise > \(place)   # as root; until the next start of the machine")
    }

    private var pressureFinding: Finding {
        let place = "/proc/pressure/memory"
        guard let percent = kernel.memoryPressure else {
            return .note(
                "kernel.pressure", at: place, "the kernel does not tell what waits for memory",
                means: "A machine that thrashes looks like a slow daemon.", mend: "boot with psi=1 to have it")
        }
        guard percent >= 5 else {
            return .ok("kernel.pressure", at: place, "something waited for memory \(percent) % of the last minute")
        }
        return .warning(
            "kernel.pressure", at: place, "something waited for memory \(percent) % of the last minute",
            means: "The machine has less memory than what runs on it wants; everything is slow.",
            mend: "lower ram.budget in kvtcd.toml, or see what else takes memory: top -o RES")
    }

    private var swapFinding: Finding? {
        guard let process else { return nil }
        let place = "/proc/\(process.pid)/status"
        guard process.swapped >= 64 << 20 else { return .ok("kernel.swap", at: place, "the daemon is not in swap") }
        return .warning(
            "kernel.swap", at: place, "\(ByteSize.rounded(process.swapped)) of the daemon are in swap",
            means: "Hits in RAM become slower than hits on disk.",
            mend: "systemctl edit kvtcd   # [Service] MemorySwapMax=0, and lower ram.budget")
    }

    var keeperFindings: [Finding] {
        let place = "systemctl show kvtcd"
        guard let unit, unit.isLoaded, let process, unit.pid == process.pid else {
            guard process != nil else { return [] }
            return [
                .note(
                    "fdstore", at: place, "the daemon does not run under systemd, as far as can be seen",
                    means: "Its RAM tier ends with its process. The disk tier does not.",
                    mend: "systemctl enable --now kvtcd.socket")
            ]
        }
        // Arenas of 256 MiB, or of a 32nd of the budget where that is more.
        let budget = ramBudget ?? 0
        let need = budget / max(256 << 20, budget / 32) + 2
        let found = "room for \(unit.storeMax) descriptors, \(unit.stored) in it"
        if unit.storeMax < need {
            return [
                .warning(
                    "fdstore", at: place, found, means: "Not all of the RAM tier outlives a restart.",
                    mend:
                        "systemctl edit kvtcd   # [Service] FileDescriptorStoreMax=\(max(64, need)), then: systemctl restart kvtcd"
                )
            ]
        }
        if unit.stored == 0, (status?.tiers.ram.pages ?? 0) > 0 {
            return [
                .warning(
                    "fdstore", at: place, "\(found), though there are pages in RAM",
                    means: "The RAM tier ends with the daemon's process.",
                    mend: "journalctl -u kvtcd -g 'does not keep'")
            ]
        }
        return [.ok("fdstore", at: place, found)]
    }

    var namespaceFindings: [Finding] {
        guard let process else { return [] }
        let place = "/proc/\(process.pid)/uid_map"
        var findings: [Finding] = []
        if process.userMap.isEmpty {
            findings.append(
                .unseen("namespace", at: place, "the daemon's user namespace", mend: "run kvtcctl doctor as root"))
        } else if !Scene.hasEveryUser(process.userMap) {
            findings.append(
                .problem(
                    "namespace", at: place, "the daemon's user namespace has numbers for some users only",
                    means: "All others look like one user to it: it refuses them, or takes them for its user 65534.",
                    mend:
                        "run kvtcd outside of it (no PrivateUsers=), or give each container a socket ([containers], man kvtcd)"
                ))
        }
        if process.sharesProcesses == false {
            findings.append(
                .warning(
                    "namespace", at: "/proc/\(process.pid)/ns/pid", "the daemon is in another namespace of processes",
                    means: "It refuses users of this one, but on sockets of containers.",
                    mend: "give each container a socket ([containers], man kvtcd)"))
        }
        guard findings.isEmpty else { return findings }
        return [.ok("namespace", at: place, "every user of this machine has a number in the daemon's namespace")]
    }

    /// Whether lines of first number inside, first outside and how many are all that there can be.
    private static func hasEveryUser(_ map: String) -> Bool {
        let counts = map.split(separator: "\n").compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
        return counts.reduce(0) { $0.addingReportingOverflow($1).partialValue } >= Int(UInt32.max) - 1
    }

    var profileFindings: [Finding] {
        let place = "the daemon's profile directory"
        let broken = profiles.filter { $0.problem != nil }
        var findings = broken.map { profile in
            Finding.problem(
                "profiles", at: profile.path, profile.problem ?? "",
                means: "Sessions that ask for it are refused (unknownProfile).",
                mend: "calibrate or copy it again, then: kvtcctl profile load \(profile.path)")
        }
        for profile in status?.profiles ?? [] {
            guard let problem = profile.problem else { continue }
            findings.append(
                .warning(
                    "profiles", at: profile.file ?? profile.id, "in memory only: \(problem)",
                    means: "It is gone when the daemon ends.",
                    mend: "make the directory writable for the daemon; then load it again"))
        }
        guard findings.isEmpty else { return findings }
        let loaded = status?.profiles.count ?? profiles.count
        guard loaded > 0 else {
            return [
                .note(
                    "profiles", at: place, "no profile",
                    means: "Without one sessions are lossless or quantised: no ratio above 4.",
                    mend: "kvtcctl calibrate --help   # then: kvtcctl profile load FILE")
            ]
        }
        return [.ok("profiles", at: place, "\(loaded) loaded, \(profiles.count) files read here and good")]
    }
}
