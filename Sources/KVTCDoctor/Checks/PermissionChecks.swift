import Glibc

// Who may connect, and who may read what conversations leave behind.
extension Scene {
    var permissionFindings: [Finding] { [socketFinding, directoryFinding].compactMap(\.self) }

    private var socketFinding: Finding? {
        guard let file = socket.file else {
            if case .nothing(code: ENOENT, reason: _) = answer { return nil }
            return .unseen(
                "permissions.socket", at: socket.path, "the socket (\(socket.problem))", mend: "sudo kvtcctl doctor")
        }
        guard file.kind == .socket else {
            return .problem(
                "permissions.socket", at: socket.path, "that is no socket",
                means: "A daemon refuses to take the place of something else.",
                mend: "remove it, or name the daemon's socket with --socket")
        }
        let mode = "0" + String(file.mode & 0o777, radix: 8)
        let found = "mode \(mode), owner \(file.ownerName), group \(file.groupName)"
        if !mayConnect(file) {
            return refusal(file, found)
        }
        if file.mode & 0o002 != 0 {
            return .note(
                "permissions.socket", at: socket.path, found,
                means: "Every user of this machine may keep pages, each their own. A group keeps others out.",
                mend: "set socket.mode = \"0660\" in kvtcd.toml (SocketMode= under systemd)")
        }
        return .ok("permissions.socket", at: socket.path, "\(found); \(caller.name) may connect")
    }

    private func refusal(_ file: File, _ found: String) -> Finding {
        let found = "\(found); \(caller.name) may not connect"
        func problem(_ means: String, _ mend: String) -> Finding {
            .problem("permissions.socket", at: socket.path, found, means: means, mend: mend)
        }
        if caller.groupsOfUser.contains(file.group), !caller.groups.contains(file.group) {
            return problem(
                "\(caller.name) is in group \(file.groupName) by now, and this login is from before that.",
                "log in again, or: newgrp \(file.groupName)")
        }
        // Nobody is to join root's group for this.
        guard file.group != 0, file.mode & 0o020 != 0 else {
            return problem(
                "The socket is for its owner alone.",
                "have \(file.ownerName) set socket.mode in kvtcd.toml, or give the socket a group")
        }
        return problem(
            "Who may use the daemon is in group \(file.groupName).",
            "adduser \(caller.name) \(file.groupName)   # as root; then log in again")
    }

    private func mayConnect(_ file: File) -> Bool {
        if isRoot { return true }
        if file.owner == caller.uid { return file.mode & 0o200 != 0 }
        if caller.groups.contains(file.group) { return file.mode & 0o020 != 0 }
        return file.mode & 0o002 != 0
    }

    private var directoryFinding: Finding? {
        guard let directory, diskBudget != 0, !isDirectoryToCome else { return nil }
        guard let file = directory.file else {
            return isRoot
                ? nil
                : .unseen(
                    "permissions.directory", at: directory.path, "the disk tier's directory (\(directory.problem))",
                    mend: "sudo kvtcctl doctor")
        }
        let mode = "0" + String(file.mode & 0o777, radix: 8)
        let found = "mode \(mode), owner \(file.ownerName)"
        if let process, file.owner != process.uid {
            return .problem(
                "permissions.directory", at: directory.path, "\(found); the daemon runs as user \(process.uid)",
                means: "The daemon cannot keep what it has on disk.",
                mend: "chown -R \(process.uid) \(directory.path)")
        }
        if file.mode & 0o022 != 0 {
            return .problem(
                "permissions.directory", at: directory.path, found,
                means: "Others than the daemon may put files in the place of its own.",
                mend: "chmod go-w \(directory.path)")
        }
        if file.mode & 0o005 != 0 {
            return .warning(
                "permissions.directory", at: directory.path, found,
                means: "What is in it comes from conversations, and other users may look for it.",
                mend: "chmod o-rx \(directory.path)")
        }
        return .ok("permissions.directory", at: directory.path, found)
    }
}
