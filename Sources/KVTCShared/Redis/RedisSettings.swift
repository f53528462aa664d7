/// The files by which both ends of a TLS connection prove who they are, in PEM.
public struct TLSFiles: Sendable, Hashable {
    /// The authorities that servers' certificates are checked against; nil for those of the system.
    public var authorities: String?
    /// The certificate of this end, with those between it and its authority; nil where servers ask for none.
    public var certificate: String?
    /// Its key.
    public var key: String?

    /// Files, which are read anew for each connection, so that renewed ones need no restart.
    public init(authorities: String? = nil, certificate: String? = nil, key: String? = nil) {
        (self.authorities, self.certificate, self.key) = (authorities, certificate, key)
    }
}

/// How servers are talked to.
public struct RedisSettings: Sendable {
    /// Where they are.
    public var url: RedisURL
    /// The password; nil where none is asked for.
    public var password: String?
    /// For TLS.
    public var tls = TLSFiles()
    /// How long a connection may take from resolving the name to having authenticated, and how long a server may owe answers without a
    /// byte before its connection is given up.
    public var connectMilliseconds = 1000
    /// Bytes of a value. A server that announces more is not listened to any further.
    public var largestValue = 256 << 20

    /// Servers at a URL, with what is usual.
    public init(url: RedisURL) { self.url = url }
}

extension RedisSettings {
    /// ``connectMilliseconds`` in nanoseconds.
    var patience: UInt64 { UInt64(max(1, connectMilliseconds)) * 1_000_000 }

    /// What a connection begins with. Whatever a server has against being asked, it has against the last of these, too.
    var greeting: [RedisCommand] {
        var commands: [RedisCommand] = []
        if password != nil || url.user != nil {
            commands.append(
                RedisCommand((["AUTH"] + (url.user.map { [$0] } ?? []) + [password ?? ""]).map { Array($0.utf8) }))
        }
        if url.database != 0 { commands.append(RedisCommand("SELECT", String(url.database))) }
        return commands + [RedisCommand("PING")]
    }
}
