/// Where a server listens.
public enum RedisAddress: Sendable, Hashable, CustomStringConvertible {
    /// A host name or a numeric address, and a port.
    case tcp(host: String, port: UInt16)
    /// A Unix socket.
    case unix(path: String)

    /// The form that a URL has: `host:6379`, `[::1]:6379` or a path.
    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): path
        }
    }
}
