/// Where a monitor listens: at a port of this machine alone, or at a Unix socket.
public enum MonitorAddress: Sendable, Equatable, CustomStringConvertible {
    case loopback(port: UInt16)
    case unix(path: String)

    /// Bytes of a path that the address of a socket holds.
    private static let longestPath = 107

    /// Reads "127.0.0.1:9464", "localhost:9464" or "unix:/run/kvtcd-monitor/http.sock".
    /// - Throws: what is wrong with it, for people.
    public init(_ text: String) throws(MonitorError) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard path.hasPrefix("/"), path.utf8.count <= Self.longestPath else {
                throw MonitorError("'\(text)': a Unix socket is unix:/PATH, of \(Self.longestPath) bytes at most")
            }
            self = .unix(path: path)
            return
        }
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let port = UInt16(parts[1]) else {
            throw MonitorError("'\(text)' is neither 127.0.0.1:PORT nor unix:/PATH")
        }
        guard ["127.0.0.1", "localhost"].contains(parts[0]) else {
            throw MonitorError(
                "'\(parts[0])' is not this machine alone: listen at 127.0.0.1 and let a proxy that knows its users "
                    + "forward what others may see")
        }
        self = .loopback(port: port)
    }

    /// As it is given on the command line.
    public var description: String {
        switch self {
        case .loopback(let port): "127.0.0.1:\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// Why a monitor can't do what it is asked to.
public struct MonitorError: Error, CustomStringConvertible {
    /// For people: what to do is part of it.
    public var description: String

    /// An error of these words.
    public init(_ description: String) { self.description = description }
}
