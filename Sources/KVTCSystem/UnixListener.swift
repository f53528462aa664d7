import CLinux
import Glibc

/// A Unix socket that waits for connections.
public final class UnixListener: Sendable {
    package let descriptor: FileDescriptor
    /// The path this listener made and removes at the end; nil for a socket that was inherited.
    public let path: String?

    /// Takes over a listening socket, such as one from systemd.
    public init(owning descriptor: consuming FileDescriptor) {
        self.descriptor = descriptor
        path = nil
    }

    /// Makes and binds a socket. A socket file at the path on which no process listens is a leftover and goes away; one that
    /// answers, or a file that is no socket, is an error (EADDRINUSE).
    public init(path: String, mode: mode_t = 0o660, backlog: Int32 = 256) throws(SystemError) {
        let socket = FileDescriptor(owning: try SystemError.check("socket", clinux_unix_socket()))
        var bound = clinux_unix_bind(socket.raw, path)
        if bound == -EADDRINUSE {
            try UnixListener.removeLeftover(path)
            bound = clinux_unix_bind(socket.raw, path)
        }
        _ = try SystemError.check("bind \(path)", bound)
        // Before listen, so that no peer connects under the wider mode. Who may write to the directory, as a container to
        // that of its socket, can have put a link there meanwhile.
        guard fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW) == 0, listen(socket.raw, backlog) == 0 else {
            let code = errno
            unlink(path)
            throw SystemError("listen on \(path)", code: code)
        }
        descriptor = socket
        self.path = path
    }

    /// Why no socket can be made under a path where nothing is; nil where one can be, or where the path is too long to say.
    public static func refusal(toBind path: String) -> Int32? {
        guard path.utf8.count <= 107 else { return nil }
        let socket = clinux_unix_socket()
        guard socket >= 0 else { return nil }
        defer { close(socket) }
        let bound = clinux_unix_bind(socket, path)
        if bound == 0 { unlink(path) }
        return bound < 0 ? -bound : nil
    }

    private static func removeLeftover(_ path: String) throws(SystemError) {
        var info = stat()
        guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFSOCK else {
            throw SystemError("bind \(path)", code: EADDRINUSE)
        }
        let probe = FileDescriptor(owning: try SystemError.check("socket", clinux_unix_socket()))
        guard clinux_unix_connect(probe.raw, path, 0) == -ECONNREFUSED else {
            throw SystemError("bind \(path)", code: EADDRINUSE)
        }
        unlink(path)
    }

    /// Waits for the next connection; nil when `wakeUp` was signalled instead.
    public func accept(wakeUp: WakeUp) throws(SystemError) -> UnixConnection? {
        while true {
            var set = [
                pollfd(fd: wakeUp.descriptor.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
            ]
            let ready = poll(&set, 2, -1)
            if ready < 0 {
                if errno == EINTR { continue }
                throw SystemError("poll", code: errno)
            }
            if set[0].revents != 0 { return nil }
            let result = clinux_accept(descriptor.raw)
            // The peer may be gone again, or another process sharing the socket was faster.
            if [-EAGAIN, -EINTR, -ECONNABORTED].contains(result) { continue }
            let socket = FileDescriptor(owning: try SystemError.check("accept", result))
            return try UnixConnection(owning: socket)
        }
    }

    /// The path that the socket is bound to, inherited or made here; empty for none.
    public var boundPath: String {
        var path = [CChar](repeating: 0, count: 256)
        guard clinux_socket_path(descriptor.raw, &path, path.count) > 0 else { return "" }
        return path.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    /// Removes the socket file when this listener made it.
    public func removePath() { if let path { unlink(path) } }
}
