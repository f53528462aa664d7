import Glibc
import KVTCSystem

/// What no single value shows.
extension DaemonConfiguration {
    /// What is wrong with a configuration, and what its administrator should know.
    public struct Findings: Sendable {
        /// What the daemon cannot start with.
        public var errors: [ConfigurationError] = []
        /// What it can start with and is probably not meant.
        public var warnings: [ConfigurationError] = []
    }

    /// Makes what is missing of directories, and returns what should be known. Throws what the daemon cannot start with.
    /// - Parameter bound: the paths of the sockets that there are already.
    @discardableResult
    public func validate(bound: [String] = []) throws(ConfigurationErrors) -> [ConfigurationError] {
        let findings = check(isTrial: false, bound: bound)
        guard findings.errors.isEmpty else { throw ConfigurationErrors(findings.errors) }
        return findings.warnings
    }

    /// Checks that the machine is large enough, that values go together and that directories can be used.
    /// - Parameters:
    ///   - isTrial: leave nothing behind that was not there before.
    ///   - bound: the paths of the sockets that there are already, so that the daemon need not make them.
    ///   - besides: what is known to be wrong: of a file that could not be read nothing follows, and one error a key will do.
    public func check(isTrial: Bool, bound: [String] = [], besides: [ConfigurationError] = []) -> Findings {
        if besides.contains(where: { $0.key.isEmpty }) { return Findings() }
        var findings = Findings()
        checkMemory(&findings)
        checkProfiles(&findings)
        checkPairs(&findings)
        checkContainers(&findings)
        checkShared(&findings)
        let ofContainers = Set(containers.values)
        if bound.allSatisfy(ofContainers.contains) { checkSocket("socket.path", socketPath, &findings) }
        for (name, path) in containers.sorted(by: { $0.key < $1.key }) where !bound.contains(path) {
            checkSocket("containers.\(name)", path, &findings)
        }
        checkFileSize(&findings)
        // Last, because it makes the directory when nothing is wrong.
        checkDisk(&findings, isTrial: isTrial)
        let known = Set(besides.map(\.key))
        findings.errors.removeAll { known.contains($0.key) }
        findings.warnings = ConfigurationErrors(findings.warnings.filter { !known.contains($0.key) }).all
        return findings
    }

    private func isSet(_ key: String) -> Bool {
        if case .standard = origin(of: key) { false } else { true }
    }

    /// A message about a key, with the value's origin.
    func about(_ key: String, _ message: String) -> ConfigurationError {
        var error = ConfigurationError(key: key, message, origin: origin(of: key))
        error.value = ConfigurationSetting.named(key)?.value(in: self).toml ?? ""
        return error
    }

    private func checkMemory(_ findings: inout Findings) {
        if let shortage = machine.shortage { return findings.errors.append(about("ram.budget", shortage)) }
        let memory = machine.memory
        let whole =
            "the \(ByteSize.rounded(memory.value)) of memory that "
            + (memory.source.map { $0 == "RLIMIT_AS" ? "\($0) leaves for pages" : "\($0) allows" } ?? "this machine has")
        if ramBudget > memory.value {
            findings.errors.append(about("ram.budget", "more than \(whole)"))
        } else if ramBudget.addingReportingOverflow(limits.arenaBytesPerUser).partialValue > memory.value {
            findings.warnings.append(
                about(
                    "ram.budget",
                    "with the arenas of one user (limits.arena_per_user = "
                        + "\(ByteSize.text(limits.arenaBytesPerUser))) more than \(whole): lower one of them"))
        }
    }

    /// Arenas are files, too, of memory.
    private func checkFileSize(_ findings: inout Findings) {
        guard let allowed = machine.largestFile else { return }
        let files = [("ram.budget", "an arena", tiers.arenaSize), ("disk.segment", "a segment", tiers.segmentSize)]
        for (key, file, size) in files where size > allowed {
            findings.errors.append(
                about(
                    key,
                    "RLIMIT_FSIZE allows files of \(ByteSize.rounded(allowed)), and \(file) takes "
                        + "\(ByteSize.rounded(size)): raise it"))
        }
    }

    private func checkDisk(_ findings: inout Findings, isTrial: Bool) {
        guard let directory, effectiveDiskBudget > 0 else { return }
        var made: [String] = []
        defer { if isTrial || !findings.errors.isEmpty { for path in made.reversed() { rmdir(path) } } }
        if let failure = DaemonConfiguration.makeWritable(directory, made: &made) {
            // These pass, or can be mended while the daemon runs; it serves from RAM until then.
            if [ENOSPC, EDQUOT, EROFS, EIO].contains(failure.code) {
                findings.warnings.append(about("disk.directory", "\(failure.message); pages stay in RAM until it is"))
            } else {
                findings.errors.append(
                    about(
                        "disk.directory",
                        "\(failure.message); name a directory the daemon may write to, or \"\" for RAM only"))
            }
        }
        let budget = effectiveDiskBudget
        guard findings.errors.allSatisfy({ $0.key != "disk.directory" }) else { return }
        guard let room = DaemonConfiguration.room(directory) else { return }
        if budget > room.size {
            findings.errors.append(
                about("disk.budget", "more than the \(ByteSize.rounded(room.size)) of the file system of \(directory)"))
        } else if budget > room.free {
            findings.warnings.append(
                about(
                    "disk.budget",
                    "the file system of \(directory) has only \(ByteSize.rounded(room.free)) left for it: lower it or make room"
                ))
        }
        if budget < ramBudget, ramBudget <= machine.memory.value {
            findings.warnings.append(
                about(
                    "disk.budget",
                    "a stop cannot keep all that RAM holds: raise disk.budget above ram.budget "
                        + "(\(ByteSize.text(ramBudget))), on a larger file system where this one is too small, or lower ram.budget"
                ))
        }
        if segmentBytes > budget / 4, isSet("disk.segment") {
            findings.warnings.append(
                about("disk.segment", "segments get \(ByteSize.rounded(budget / 4)), a quarter of disk.budget"))
        }
    }

    private func checkProfiles(_ findings: inout Findings) {
        // The default place may be missing: then there are no profiles yet.
        guard let profileDirectory, profileDirectory != directory.map({ $0 + "/profiles" }) else { return }
        var info = stat()
        let isThere = stat(profileDirectory, &info) == 0
        if isThere, info.st_mode & S_IFMT != S_IFDIR {
            findings.errors.append(about("profiles.directory", "is not a directory"))
        } else if !isThere || access(profileDirectory, R_OK | X_OK) != 0 {
            let reason = String(cString: strerror(errno))
            findings.errors.append(
                about(
                    "profiles.directory",
                    "\(reason); make it readable, or leave the key out for \"profiles\" in disk.directory"))
        }
    }

    /// Limits that others make meaningless.
    private func checkPairs(_ findings: inout Findings) {
        let pairs = [
            ("limits.connections_per_user", limits.connectionsPerUser, "limits.connections", limits.connections),
            ("limits.arena", limits.arenaBytes, "limits.arena_per_user", limits.arenaBytesPerUser),
            ("limits.body", limits.bodyBytes, "limits.in_flight_bytes_per_user", limits.inFlightBytesPerUser),
            ("limits.ram_per_user", limits.ramPerUser, "ram.budget", ramBudget),
            ("limits.disk_per_user", limits.diskPerUser, "disk.budget", effectiveDiskBudget),
        ]
        for (key, value, other, least) in pairs where isSet(key) && value > least {
            findings.warnings.append(about(key, "is never reached: \(other) is less"))
        }
    }

    private func checkSocket(_ key: String, _ path: String, _ findings: inout Findings) {
        func refuse(_ message: String) { findings.errors.append(about(key, message)) }
        guard !path.isEmpty else {
            return refuse("neither XDG_RUNTIME_DIR nor HOME says where; set socket.path or --socket")
        }
        guard path.utf8.count <= 107 else {
            return refuse("\(path.utf8.count) bytes are more than the 107 that a socket's address holds")
        }
        let last = path.split(separator: "/", omittingEmptySubsequences: false).last ?? ""
        guard !["", ".", ".."].contains(last) else { return refuse("names a directory; add the name of the socket") }
        // A link is no socket either, whatever it leads to.
        var info = stat()
        if lstat(path, &info) == 0, info.st_mode & S_IFMT != S_IFSOCK {
            return refuse("something that is no socket is there; remove it or choose another path")
        }
        let directory = SocketDirectory(of: path, home: home)
        let advice = "choose another path" + (key == "socket.path" ? " with socket.path or --socket" : "")
        if let problem = directory.problem ?? directory.rehearsal() { refuse("\(problem) \(advice)") }
    }

    /// Makes a directory where it is missing and tries to write there.
    private static func makeWritable(_ path: String, made: inout [String]) -> (code: Int32, message: String)? {
        func failure(_ what: String) -> (Int32, String) {
            let code = errno
            return (code, "\(what): \(String(cString: strerror(code)))")
        }
        var partial = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            partial += "/" + part
            if mkdir(partial, 0o700) == 0 {
                made.append(partial)
            } else if errno != EEXIST {
                return failure("cannot make \(partial)")
            }
        }
        // Asking by doing: access() would answer for root what a read-only file system refuses.
        let probe = "\(path)/.write-test.\(getpid())"
        let descriptor = open(probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return failure("\(path) is not writable") }
        close(descriptor)
        unlink(probe)
        return nil
    }
}
