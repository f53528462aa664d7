import Glibc
import KVTCProtocol

// Whether a daemon answers, and which releases there are.
extension Scene {
    private var journal: String {
        unit?.isLoaded == true ? "journalctl -u kvtcd -n 50" : "look at what kvtcd wrote to its standard error"
    }

    var daemonFindings: [Finding] {
        switch answer {
        case .status(let report): [daemonFinding(report)]
        case .refused(let error):
            [
                .problem(
                    "daemon", at: socket.path, "the daemon refuses: \(error.message)",
                    means: "It serves, and not this caller (\(error.code)).",
                    mend: error.code == .limitExceeded
                        ? "end workers that are not needed, or raise limits.connections in kvtcd.toml"
                        : "ask as a user of this machine, from outside of a container")
            ]
        case .silent where unit.map({ $0.isLoaded && $0.pid == 0 }) == true:
            [
                .problem(
                    "daemon", at: socket.path,
                    "systemd listens, and kvtcd.service is \(unit?.activeState ?? "") (\(unit?.result ?? ""))",
                    means: "The daemon cannot start, or gave up.",
                    mend: "journalctl -p err -u kvtcd -n 20   # once mended: systemctl restart kvtcd")
            ]
        case .silent(let reason):
            [
                .problem(
                    "daemon", at: socket.path, "something listens and does not answer as kvtcd does: \(reason)",
                    means: "The daemon hangs, or the socket is another program's.", mend: journal)
            ]
        case .nothing(let code, let reason): [absence(code, reason)]
        }
    }

    private func daemonFinding(_ report: StatusReport) -> Finding {
        let state = "kvtcd \(report.version) answers and is \(report.state)"
        if report.state == "stopping" {
            return .note("daemon", at: socket.path, state, means: "It takes no requests any more.", mend: "ask again")
        }
        if report.state == "draining" {
            return .note(
                "daemon", at: socket.path, state,
                means: "It takes no new sessions and pages, and gives back what it has.",
                mend: "kvtcctl drain --help")
        }
        if let refusal = report.tiers.ram.refusal {
            return .problem(
                "daemon", at: socket.path, "\(state): the kernel gives no memory for pages (\(refusal))",
                means: "Fewer pages fit than ram.budget promises.",
                mend: "raise the limit of the daemon's process (man kvtcd.toml, ram.budget), or lower ram.budget")
        }
        guard report.state == "ready" else {
            return .problem(
                "daemon", at: socket.path, "\(state): \(report.stateReason ?? "it does not say why")",
                means: "Pages stay in RAM until the disk works again; what is not on disk ends with the process.",
                mend: journal)
        }
        if report.counters.lost > 0 || report.counters.errors > 0 {
            return .warning(
                "daemon", at: socket.path,
                "\(state); \(report.counters.errors) faults, \(report.counters.lost) pages lost since its start",
                means: "Something below it, most likely the disk, failed.", mend: journal)
        }
        return .ok("daemon", at: socket.path, state)
    }

    private func absence(_ code: Int32, _ reason: String) -> Finding {
        let found = "no daemon answers: \(reason)"
        if code == EACCES {
            return .problem(
                "daemon", at: socket.path, found, means: "The caller may not connect.",
                mend: "see permissions.socket below")
        }
        let start =
            unit?.isLoaded == true
            ? "systemctl start kvtcd.socket" : "kvtcd --config /etc/kvtcd/kvtcd.toml   # or name its socket: --socket"
        if code == ENOENT {
            return .problem(
                "daemon", at: socket.path, found,
                means: "There is no socket: the daemon does not run, or has its socket elsewhere.", mend: start)
        }
        if let unit, unit.activeState == "failed" {
            return .problem(
                "daemon", at: socket.path, "\(found); its unit failed (\(unit.result))",
                means: "It could not start, or did not get well again.",
                mend: "journalctl -p err -u kvtcd -n 20; systemctl reset-failed kvtcd; \(start)")
        }
        return .problem(
            "daemon", at: socket.path, found, means: "The socket is left over from a daemon that has ended.",
            mend: start)
    }

    var versionFindings: [Finding] {
        var findings: [Finding] = []
        let own = versions.kvtcctl
        let known = [
            ("running", status?.version), ("installed kvtcd", versions.kvtcd), ("Python's kvtc", versions.python),
        ]
        let text = (["kvtcctl \(own)"] + known.map { "\($0.0) \($0.1 ?? "not seen")" }).joined(separator: ", ")
        if process?.isReplaced == true || status.map({ $0.version != versions.kvtcd ?? $0.version }) == true {
            findings.append(
                .warning(
                    "versions", at: "STATUS, kvtcd --version, /proc", "\(text): another program runs than is installed",
                    means: "An upgrade has not reached the running daemon.", mend: "systemctl restart kvtcd"))
        } else if known.contains(where: { $0.1 != nil && $0.1 != own }) {
            findings.append(
                .note(
                    "versions", at: "STATUS, kvtcd --version, Python's packages", text,
                    means: "Releases differ. They agree on what both know; newer abilities stay unused.",
                    mend: "upgrade what is older"))
        } else {
            findings.append(.ok("versions", at: "STATUS, kvtcd --version, Python's packages", text))
        }
        return findings
    }
}
