import Glibc
import KVTCSystem

/// The directory of the daemon's socket, as far as it has to be made: below the user's home all of it, readable for the
/// user only; elsewhere its last part, as `/run/kvtcd`.
struct SocketDirectory {
    /// Why the socket cannot be made there, as far as that shows without trying; ends where advice may follow.
    let problem: String?
    private let path: String
    /// Directories to make, outer ones first.
    private let missing: [String]
    private let mode: mode_t

    init(of socketPath: String, home: String?) {
        let parts = socketPath.split(separator: "/").dropLast()
        var paths = [socketPath.hasPrefix("/") ? "/" : "."]
        for part in parts { paths.append(paths.last! == "/" ? "/\(part)" : "\(paths.last!)/\(part)") }
        let present = paths.prefix { SocketDirectory.exists($0) }.last!
        path = paths.last!
        missing = Array(paths.drop { SocketDirectory.exists($0) })
        let isOwn = home.map { $0 != "/" && SocketDirectory.exists($0) && paths.contains($0) } ?? false
        mode = isOwn ? 0o700 : 0o755
        if let next = missing.first, !SocketDirectory.isAbsent(next) {
            problem = "\(next): \(String(cString: strerror(errno)));"
        } else if missing.count > 1, !isOwn {
            problem = "\(missing[0]) does not exist; make it, or"
        } else if access(present, W_OK | X_OK) != 0 {
            problem = "\(present): \(String(cString: strerror(errno)));"
        } else {
            problem = nil
        }
    }

    /// Tries to make a socket there and leaves nothing behind. Why it cannot be made; nil when it can. Some file systems, such as
    /// proc, refuse what permissions allow.
    func rehearsal() -> String? {
        let made = missing.filter { mkdir($0, mode) == 0 }
        defer { for path in made.reversed() { rmdir(path) } }
        let probe = "\(path)/.kvtcd.\(getpid())"
        guard let code = UnixListener.refusal(toBind: probe) else { return nil }
        return "a socket cannot be made in \(path): \(String(cString: strerror(code)));"
    }

    /// Makes what is missing. Where that fails, binding the socket says why.
    func make() { for path in missing { mkdir(path, mode) } }

    private static func exists(_ path: String) -> Bool {
        var info = stat()
        return stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
    }

    private static func isAbsent(_ path: String) -> Bool {
        var info = stat()
        if stat(path, &info) == 0 {
            errno = ENOTDIR
            return false
        }
        return errno == ENOENT
    }
}
