import FoundationEssentials
import Glibc
import KVTCSystem

/// Has kvtcd check its configuration, with the options that the running one has and as the user that it runs as.
struct ConfigurationReader {
    /// The program that is asked.
    let program: String
    private let arguments: [String]
    private let prefix: [String]
    private let isDaemonsView: Bool
    private let isUnknown: Bool
    private let environment: [String: String]

    static let usualFile = "/etc/kvtcd/kvtcd.toml"

    init(_ scene: Scene, given file: String?) {
        let process = scene.process
        program = process?.program.flatMap { process?.isReplaced == false ? $0 : nil } ?? ConfigurationReader.installed
        if let file {
            arguments = ["--config", file]
        } else if let process, process.arguments.count > 1 {
            arguments = Array(process.arguments.dropFirst())
        } else {
            arguments =
                access(ConfigurationReader.usualFile, F_OK) == 0 ? ["--config", ConfigurationReader.usualFile] : []
        }
        let owner = scene.socket.file.flatMap { $0.kind == .socket ? ($0.owner, $0.group) : nil }
        let user =
            process.map { ($0.uid, $0.gid) } ?? scene.unit.flatMap { ConfigurationReader.numbers(of: $0.user) } ?? owner
        // What the caller's own daemon would do by default says nothing of another user's.
        isUnknown = arguments.isEmpty && process == nil && user.map { $0.0 != scene.caller.uid } == true
        // Root may do what the daemon's user may not.
        let isOther = scene.isRoot && user.map { $0.0 != 0 } == true
        prefix =
            isOther
            ? user.map { ["setpriv", "--reuid=\($0.0)", "--regid=\($0.1)", "--init-groups", "--"] } ?? [] : []
        isDaemonsView = isOther || user.map { $0.0 == scene.caller.uid } ?? true
        var environment = ConfigurationReader.own
        for (name, value) in ConfigurationReader.variables(of: process?.pid) { environment[name] = value }
        if let directory = scene.unit?.stateDirectory, !directory.isEmpty,
            process == nil || process?.pid == scene.unit?.pid
        {
            environment["STATE_DIRECTORY"] = "/var/lib/" + directory
        }
        self.environment = environment
    }

    func read(into scene: inout Scene) {
        let command = prefix + [program] + arguments + ["--check-config", "--json"]
        scene.configurationCommand = (["kvtcd"] + arguments + ["--check-config"]).joined(separator: " ")
        scene.isDaemonsView = isDaemonsView
        guard !isUnknown else {
            scene.configurationProblem = "where another user's daemon has its own is not known; name it with --config"
            return
        }
        guard let result = Command.run(command, environment: environment) else {
            scene.configurationProblem = "\(program) cannot be run"
            return
        }
        do {
            scene.configuration = try JSONDecoder().decode(Scene.Configuration.self, from: Data(result.output.utf8))
        } catch {
            scene.configurationProblem = "\(program) is of another version, or not kvtcd"
        }
    }

    /// Variables that decide about defaults, and where programs are.
    private static let deciding = ["HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "STATE_DIRECTORY", "PATH"]

    private static var own: [String: String] {
        Dictionary(
            uniqueKeysWithValues: deciding.compactMap { name in getenv(name).map { (name, String(cString: $0)) } })
    }

    /// Those of a process, as far as the caller may see; PATH stays the caller's.
    private static func variables(of pid: Int32?) -> [String: String] {
        guard let pid else { return [:] }
        var result: [String: String] = [:]
        for entry in SmallFile.text("/proc/\(pid)/environ").split(separator: "\0") {
            let parts = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            if parts.count == 2, parts[0] != "PATH", deciding.contains(parts[0]) { result[parts[0]] = parts[1] }
        }
        return result
    }

    /// Beside this program, else by its name.
    private static var installed: String {
        let own = Scene.Process.target(of: "/proc/self/exe") ?? ""
        let beside = own.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/kvtcd"
        return access(beside, X_OK) == 0 ? beside : "kvtcd"
    }

    private static func numbers(of user: String) -> (UInt32, UInt32)? {
        guard !user.isEmpty, let entry = getpwnam(user) else { return nil }
        return (entry.pointee.pw_uid, entry.pointee.pw_gid)
    }
}
