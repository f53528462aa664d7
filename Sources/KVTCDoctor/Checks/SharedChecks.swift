import KVTCProtocol

// The servers in which machines share pages, as the daemon sees them.
extension Scene {
    private static let consequence =
        "Pages of theirs are computed again on machines that do not have them; this machine's own are not affected."

    var sharedFindings: [Finding] {
        guard case .status(let report) = answer, let shared = report.shared else { return [] }
        let away = shared.servers.filter { !$0.isUp }
        guard away.isEmpty else {
            return away.map { server in
                .warning(
                    "shared.server", at: server.address,
                    "left alone: \(server.fault ?? "it failed")\(server.reason.map { " (\($0))" } ?? "")",
                    means: Self.consequence, mend: Self.mend(server.fault))
            }
        }
        if let reason = shared.pausedFor {
            return [
                .warning(
                    "shared.write", at: "[shared]", "nothing is written for now: \(reason)",
                    means: "Other machines do not find what is computed here.", mend: Self.mend(reason))
            ]
        }
        let refused = shared.faults.filter { $0.count > 0 && ["corrupt", "truncated", "newer"].contains($0.reason) }
        if !refused.isEmpty {
            let text = refused.map { "\($0.count) \($0.reason)" }.joined(separator: ", ")
            return [
                .warning(
                    "shared.values", at: "[shared]", "values were refused: \(text)",
                    means: "None was given to a worker. Newer ones are of a later release of kvtcd.",
                    mend: "the same release on all machines; look at the servers' memory and disks")
            ]
        }
        return [.ok("shared.server", at: "[shared]", "all that are known answer: \(shared.servers.count)")]
    }

    private static func mend(_ fault: String?) -> String {
        switch fault {
        case "denied": "shared.url and shared.password_file: the servers' user, password and rights (ACL LIST)"
        case "tls": "shared.ca_file and the servers' certificates: names, ends (openssl x509 -enddate)"
        case "full": "maxmemory and maxmemory-policy allkeys-lru of the servers"
        case "loading", "down": "wait, or look at the servers: redis-cli CLUSTER INFO"
        default:
            "the servers and the network to them: redis-cli -h HOST PING; under systemd the daemon has a network only with "
                + "/usr/share/kvtcd/fleet.conf"
        }
    }
}
