import KVTCSystem

// What the daemon itself says of its configuration, and whether it runs with that.
extension Scene {
    /// Settings whose check asks what its own user may do; of the first that is nothing to a daemon that has its sockets.
    private static let ofSockets = ["socket.path", "containers."]
    private static let ofDirectories = ["disk.directory", "profiles.directory"]

    var configurationFindings: [Finding] {
        let place = configurationCommand
        guard let configuration else {
            return [
                .unseen(
                    "config", at: place, "the configuration (\(configurationProblem))",
                    mend: "kvtcd --config FILE --check-config")
            ]
        }
        var findings = configuration.errors.filter(counts).map { fault in
            Finding.problem(
                "config", at: place, fault.text, means: "A daemon does not start with this configuration.",
                mend: "mend that line; then: \(place)")
        }
        findings += configuration.warnings.filter(counts).map { fault in
            Finding.warning(
                "config", at: place, fault.text, means: "The daemon starts, and cannot keep to that value.",
                mend: "mend that line; then: \(place)")
        }
        let faults = configuration.errors + configuration.warnings
        if let unseen = faults.first(where: { !counts($0) && !isSettled($0) }), !isRunning {
            findings.append(
                .unseen(
                    "config", at: place, "what the daemon's user may do about \(unseen.key)",
                    mend: "run kvtcctl doctor as root"))
        }
        if findings.isEmpty { findings.append(.ok("config", at: place, "the configuration is good")) }
        return findings + appliedFindings(configuration)
    }

    private var isRunning: Bool { status != nil }

    /// Whether a fault is of the configuration, and not of who asked from where.
    private func counts(_ fault: Configuration.Fault) -> Bool {
        if isSettled(fault) { return false }
        if (Scene.ofSockets + Scene.ofDirectories).contains(where: fault.key.hasPrefix) { return isDaemonsView }
        // The check measures the caller's own control group; the daemon's is looked at by itself.
        return !isRunning || fault.key != "ram.budget"
    }

    /// Whether it is about a socket that the daemon has, or about what systemd makes for it.
    private func isSettled(_ fault: Configuration.Fault) -> Bool {
        if fault.key == "disk.directory", isDirectoryToCome { return true }
        return Scene.ofSockets.contains(where: fault.key.hasPrefix) && (process != nil || unit?.isLoaded == true)
    }

    /// What changed in the file since the daemon read it, as far as its report shows.
    private func appliedFindings(_ configuration: Configuration) -> [Finding] {
        guard isAdministrator, let tiers = status?.tiers else { return [] }
        let both = [("ram.budget", tiers.ram.budget), ("disk.budget", tiers.disk.budget)]
        let changed = both.compactMap { key, running -> String? in
            // Defaults follow the machine, which may have changed.
            guard let setting = configuration.settings.first(where: { $0.key == key }),
                !setting.place.hasPrefix("default"), let told = configuration.number(key), told != running
            else { return nil }
            return "\(key) is \(ByteSize.rounded(told)) in the file and \(ByteSize.rounded(running)) in the daemon"
        }
        guard !changed.isEmpty else { return [] }
        return [
            .warning(
                "config.applied", at: configurationCommand, changed.joined(separator: "; "),
                means: "The daemon read its file before that was changed.", mend: "systemctl restart kvtcd")
        ]
    }
}
