import KVTCSystem

// The directory of the disk tier, what it is on, and the clocks that its files are stamped by.
extension Scene {
    /// File systems whose locks or syncs are not those of this machine, or that forget.
    private static let unsuitable: [String: String] = [
        "nfs": "A server's file system is slow to sync, and its locks may not hold against other machines.",
        "nfs4": "A server's file system is slow to sync, and its locks may not hold against other machines.",
        "cifs": "A server's file system is slow to sync, and its locks may not hold against other machines.",
        "smb3": "A server's file system is slow to sync, and its locks may not hold against other machines.",
        "ceph": "A server's file system is slow to sync.", "9p": "A host's directory is slow to sync.",
        "tmpfs": "That is memory: nothing in it outlives the machine's run, and ram.budget is the better use of it.",
        "ramfs": "That is memory: nothing in it outlives the machine's run, and ram.budget is the better use of it.",
        "overlay": "A container's own layer goes when the container does.",
    ]

    var diskFindings: [Finding] {
        guard diskBudget != 0 else {
            return [
                .note(
                    "disk", at: configurationCommand, "there is no disk tier",
                    means: "Pages are in RAM alone; they outlive the daemon only where systemd keeps them.",
                    mend: "set disk.directory and disk.budget in kvtcd.toml to have one")
            ]
        }
        guard let directory else { return [] }
        guard let filesystem = directory.filesystem else {
            return [
                .unseen(
                    "disk", at: directory.path, "its file system (\(directory.problem))",
                    mend: "run kvtcctl doctor as root")
            ]
        }
        return [spaceFinding(directory, filesystem), kindFinding(directory, filesystem), segmentsFinding(directory)]
            .compactMap(\.self)
    }

    private func spaceFinding(_ directory: Directory, _ filesystem: FileSystem) -> Finding? {
        guard let budget = diskBudget else { return nil }
        let used = (isAdministrator ? status?.tiers.disk.used : nil) ?? directory.segments?.bytes ?? 0
        let (left, place) = (max(0, budget - used), directory.path)
        let found =
            "\(ByteSize.rounded(filesystem.free)) free of \(ByteSize.rounded(filesystem.size)); "
            + "\(ByteSize.rounded(left)) of disk.budget (\(ByteSize.rounded(budget))) are still to be used"
        if let files = filesystem.freeFiles, files < 1000 {
            return .problem(
                "disk.space", at: place, "only \(files) more files can be made there (inodes)",
                means: "The daemon cannot begin new segments.", mend: "df -i \(place); remove files that are not needed"
            )
        }
        if filesystem.free < min(left, 256 << 20) {
            return .problem(
                "disk.space", at: place, found,
                means: "The file system is full before the tier is: pages stay in RAM or go.",
                mend: "make room on it, or lower disk.budget in kvtcd.toml")
        }
        if filesystem.free < left {
            return .warning(
                "disk.space", at: place, found, means: "The file system will be full before the tier is.",
                mend:
                    "make room on it, or lower disk.budget to \(ByteSize.text((used + filesystem.free) & ~0xFFF_FFFF)) in kvtcd.toml"
            )
        }
        return .ok("disk.space", at: place, found)
    }

    private func kindFinding(_ directory: Directory, _ filesystem: FileSystem) -> Finding {
        let place = directory.path
        if filesystem.isReadOnly {
            return .problem(
                "disk.filesystem", at: place, "\(filesystem.kind), mounted read-only",
                means: "Nothing can be written: after a fault kernels mount file systems so.",
                mend: "journalctl -k -n 50; then: mount -o remount,rw $(findmnt -no TARGET -T \(place))")
        }
        let kind = filesystem.kind
        if let reason = Scene.unsuitable[kind] ?? (kind.hasPrefix("fuse") ? Scene.unsuitable["9p"] : nil) {
            return .warning(
                "disk.filesystem", at: place, kind, means: reason,
                mend: "name a directory on a local disk as disk.directory in kvtcd.toml")
        }
        return .ok("disk.filesystem", at: place, "\(kind), local and writable")
    }

    private func segmentsFinding(_ directory: Directory) -> Finding? {
        let place = "\(directory.path)/segment-*"
        guard let segments = directory.segments else {
            return .unseen("disk.files", at: place, "the tier's files", mend: "run kvtcctl doctor as root")
        }
        if let name = segments.foreign.first {
            return .note(
                "disk.files", at: place, "\(segments.foreign.count) files there are not the daemon's, such as \(name)",
                means: "They take room from the tier, and the daemon leaves them alone.",
                mend: "ls -la \(directory.path)")
        }
        guard segments.count > 0 else { return .ok("disk.files", at: place, "no segments yet") }
        return .ok(
            "disk.files", at: place,
            "\(segments.count == 1 ? "1 segment" : "\(segments.count) segments") of \(ByteSize.rounded(segments.bytes)), the oldest written to "
                + "\(Scene.age(clock.now - segments.oldest)) ago, the newest \(Scene.age(clock.now - segments.newest)) ago"
        )
    }

    private static func age(_ seconds: Int) -> String {
        let seconds = max(0, seconds)
        let (unit, length) = [("d", 86_400), ("h", 3600), ("min", 60)].first { seconds >= $0.1 } ?? ("s", 1)
        return "\(seconds / length) \(unit)"
    }

    var clockFindings: [Finding] {
        // Files and certificates of this century are younger.
        guard clock.now > 1_700_000_000 else {
            return [
                .problem(
                    "clock", at: "CLOCK_REALTIME", "the clock says second \(clock.now) since 1970",
                    means: "It is not set: logs and stamps say nothing, and lifetimes of pages over restarts neither.",
                    mend: "timedatectl set-ntp true")
            ]
        }
        let slack = 300
        if let newest = directory?.segments?.newest, newest > clock.now + slack {
            return [
                .warning(
                    "clock", at: "CLOCK_REALTIME, \(directory?.path ?? "")",
                    "files of the disk tier are stamped \(Scene.age(newest - clock.now)) ahead of the clock",
                    means: "The clock was ahead, or is behind now. Pages with a lifetime may live too long.",
                    mend: "timedatectl set-ntp true")
            ]
        }
        if let jump, abs(jump) > slack {
            return [
                .warning(
                    "clock", at: "CLOCK_REALTIME, CLOCK_BOOTTIME, the start of the daemon",
                    "the clock was set \(jump > 0 ? "forward" : "back") by \(Scene.age(abs(jump))) since the daemon started",
                    means:
                        "Nothing the daemon measures follows it; stamps in logs and of files before that do not fit.",
                    mend: "timedatectl status")
            ]
        }
        guard clock.isSynchronised != false else {
            return [
                .note(
                    "clock", at: "adjtimex", "the clock follows no source of time",
                    means: "It drifts. Lifetimes of pages are measured with another one while the daemon runs.",
                    mend: "timedatectl set-ntp true")
            ]
        }
        return [.ok("clock", at: "CLOCK_REALTIME, adjtimex", "set, and in step with the stamps of files")]
    }

    /// Seconds that the clock was set forward since the daemon started, by what was noted then.
    private var jump: Int? {
        guard let process, process.started > 0 else { return nil }
        let running = clock.run - process.started
        // A socket of the service manager's is older than the daemon.
        let stamp = unit.flatMap { $0.pid == process.pid && $0.started > 0 ? $0.started : nil } ?? ownSocketStamp
        return stamp.map { clock.now - $0 - Int(running) }
    }

    private var ownSocketStamp: Int? {
        guard unit?.pid != process?.pid, let file = socket.file, file.kind == .socket, file.owner == process?.uid else {
            return nil
        }
        return file.changed
    }
}
