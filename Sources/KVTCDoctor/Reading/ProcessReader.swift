import Glibc
import KVTCSystem

extension Scene.Process {
    /// Whether a process of this machine is a kvtcd.
    static func isDaemon(_ pid: Int32) -> Bool { SmallFile.text("/proc/\(pid)/comm").trimmed == "kvtcd" }

    /// Reads what the kernel shows of a process; nil where there is none of that number.
    init?(_ pid: Int32) {
        let place = "/proc/\(pid)"
        let status = SmallFile.lines(place + "/status")
        guard !status.isEmpty else { return nil }
        func numbers(_ name: String) -> [Int] {
            let line = status.first { $0.hasPrefix(name + ":") } ?? ""
            return line.split { " \t".contains($0) }.compactMap { Int($0) }
        }
        self.init()
        self.pid = pid
        // Real, effective, saved and of the file system.
        uid = UInt32(numbers("Uid").dropFirst().first ?? 0)
        gid = UInt32(numbers("Gid").dropFirst().first ?? 0)
        threads = numbers("Threads").first ?? 0
        swapped = (numbers("VmSwap").first ?? 0) << 10
        arguments = SmallFile.text(place + "/cmdline").split(separator: "\0", omittingEmptySubsequences: false).map(
            String.init)
        // After the last one as well.
        if arguments.last == "" { arguments.removeLast() }
        for line in SmallFile.lines(place + "/limits") {
            // Columns of a fixed width: the name in 26 characters, then the soft limit.
            let (name, rest) = (String(line.prefix(26)).trimmed, line.dropFirst(26))
            limits[name] = rest.split(separator: " ").first.flatMap { Int($0) }
        }
        // Field 22 of proc_pid_stat(5), counted from the name's closing bracket, which may itself have blanks.
        let stat = SmallFile.text(place + "/stat")
        let fields = stat[(stat.lastIndex(of: ")") ?? stat.startIndex)...].split(separator: " ")
        if fields.count > 20, let ticks = Double(fields[20]) { started = ticks / Double(sysconf(Int32(_SC_CLK_TCK))) }
        if let target = Scene.Process.target(of: place + "/exe") {
            isReplaced = target.hasSuffix(" (deleted)")
            program = isReplaced ? String(target.dropLast(10)) : target
        }
        userMap = SmallFile.text(place + "/uid_map")
        if let theirs = Scene.Process.target(of: place + "/ns/pid") {
            sharesProcesses = theirs == Scene.Process.target(of: "/proc/self/ns/pid")
        }
    }

    /// Where a link leads; nil where that may not be seen.
    static func target(of link: String) -> String? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = bytes.withUnsafeMutableBytes {
            readlink(link, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
    }
}

extension Scene.Unit {
    /// What systemctl says; nil where there is no systemd.
    static func read() -> Scene.Unit? {
        let names = [
            "LoadState", "MainPID", "User", "FileDescriptorStoreMax", "NFileDescriptorStore", "StateDirectory",
            "ExecMainStartTimestamp", "ActiveState", "Result",
        ]
        let command = ["systemctl", "show", "kvtcd.service", "--timestamp=unix", "-p", names.joined(separator: ",")]
        guard let result = Command.run(command), result.status == 0 else { return nil }
        return Scene.Unit(result.output)
    }

    /// From lines such as `MainPID=17`.
    init(_ text: String) {
        self.init()
        for line in text.split(separator: "\n") {
            guard let sign = line.firstIndex(of: "=") else { continue }
            let value = String(line[line.index(after: sign)...])
            switch line[..<sign] {
            case "LoadState": isLoaded = value == "loaded"
            case "MainPID": pid = Int32(value) ?? 0
            case "User": user = value
            case "FileDescriptorStoreMax": storeMax = Int(value) ?? 0
            case "NFileDescriptorStore": stored = Int(value) ?? 0
            case "StateDirectory": stateDirectory = value
            // As @1795818000.
            case "ExecMainStartTimestamp": started = Int(value.dropFirst()) ?? 0
            case "ActiveState": activeState = value
            case "Result": result = value
            default: break
            }
        }
    }
}
