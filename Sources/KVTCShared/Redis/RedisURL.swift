/// What is wrong with a URL of a Redis or Valkey server.
public enum RedisURLError: Error, Hashable, Sendable, CustomStringConvertible {
    /// It does not begin with one of the schemes.
    case scheme(String)
    /// It contains a password, which would be seen by all that see the configuration.
    case password
    /// A host, port, database or path that is none.
    case malformed(String)
    /// What cannot be together.
    case contradiction(String)

    /// What is wrong, and what would be right.
    public var description: String {
        switch self {
        case .scheme(let text):
            "'\(text)' begins with none of redis://, rediss:// (TLS), redis+cluster://, rediss+cluster:// and unix://; "
                + RedisURLError.example
        case .password: "a password does not belong into the URL, where all that read it see it: use password_file"
        case .malformed(let what), .contradiction(let what): what + "; " + RedisURLError.example
        }
    }

    private static let example = "for example rediss+cluster://kv-a:6379,kv-b:6379 or redis://kv-a:6379/0"
}

/// Where a Redis or Valkey server, or a cluster of them, is reached:
/// `redis://[user@]host[:port][/database]`, the same with `rediss` for TLS, `redis+cluster://[user@]host[:port],host[:port],…` and
/// `rediss+cluster://…` for a cluster of which at least one of the hosts is part, and `unix://[user@]/path`.
public struct RedisURL: Sendable, Hashable {
    /// The servers named; exactly one unless it is a cluster.
    public let addresses: [RedisAddress]
    /// Whether all is encrypted and the servers prove who they are.
    public let isTLS: Bool
    /// Whether the servers share the keys by slots.
    public let isCluster: Bool
    /// The user to authenticate as; nil for the default one.
    public let user: String?
    /// The number of the database; 0 in clusters, which have no others.
    public let database: Int

    /// Reads a URL.
    public init(_ text: String) throws(RedisURLError) {
        guard let mark = text.firstRange(of: "://") else { throw .scheme(RedisURL.shown(text)) }
        let scheme = text[..<mark.lowerBound].lowercased()
        var rest = text[mark.upperBound...]
        guard ["redis", "rediss", "redis+cluster", "rediss+cluster", "unix"].contains(scheme) else {
            throw .scheme(RedisURL.shown(scheme + "://"))
        }
        isTLS = scheme.hasPrefix("rediss")
        isCluster = scheme.hasSuffix("+cluster")
        guard !rest.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7F }) else {
            throw .malformed("the URL contains a space or a control character")
        }
        let authority = rest.prefix { $0 != "/" }
        if let at = authority.lastIndex(of: "@") {
            let name = authority[..<at]
            guard !name.contains(":") else { throw .password }
            guard !name.isEmpty else { throw .malformed("the user before '@' is empty") }
            user = String(name)
            rest = rest[rest.index(after: at)...]
        } else {
            user = nil
        }
        if scheme == "unix" {
            // The room of an address of the system's, with the zero at its end.
            guard rest.hasPrefix("/"), rest.utf8.count > 1, rest.utf8.count <= 107 else {
                throw .malformed("unix:// is followed by the absolute path of a socket, of at most 107 bytes")
            }
            (addresses, database) = ([.unix(path: String(rest))], 0)
            return
        }
        let hosts = rest.prefix { $0 != "/" }
        let path = rest[hosts.endIndex...].dropFirst()
        if path.isEmpty {
            database = 0
        } else {
            guard !isCluster else { throw .contradiction("a cluster has no numbered databases: '/\(path)' is to go") }
            guard let number = RedisURL.number(path), number <= 65_535 else {
                throw .malformed("'\(RedisURL.shown(path))' is no number of a database")
            }
            database = number
        }
        var found: [RedisAddress] = []
        for host in hosts.split(separator: ",", omittingEmptySubsequences: false) {
            let address = try RedisURL.address(host)
            guard !found.contains(address) else { throw .contradiction("\(address) is named twice") }
            found.append(address)
        }
        guard isCluster || found.count == 1 else {
            throw .contradiction("several hosts are a cluster: \(isTLS ? "rediss" : "redis")+cluster://")
        }
        guard found.count <= 1024 else { throw .malformed("more than 1024 hosts; a few of a cluster are enough") }
        addresses = found
    }

    private static func address(_ text: Substring) throws(RedisURLError) -> RedisAddress {
        var host = text
        var port: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw .malformed("'\(shown(text))' lacks a ']'") }
            host = text[text.index(after: text.startIndex)..<end]
            let rest = text[text.index(after: end)...]
            guard rest.isEmpty || rest.hasPrefix(":") else {
                throw .malformed("'\(shown(text))': ']' is followed by nothing or by ':' and a port")
            }
            port = rest.isEmpty ? nil : rest.dropFirst()
            guard isIPv6(host) else {
                throw .malformed("'\(shown(text))' is no IPv6 address in brackets")
            }
        } else {
            if let colon = text.firstIndex(of: ":") {
                (host, port) = (text[..<colon], text[text.index(after: colon)...])
            }
            guard port?.contains(":") != true else {
                throw .malformed(
                    "'\(shown(text))' has more than one ':': an IPv6 address stands in brackets, as in [::1]:6379")
            }
            guard isName(host) else { throw .malformed("'\(shown(host))' is no host") }
        }
        guard let port else { return .tcp(host: String(host), port: 6379) }
        guard let number = number(port), (1...65_535).contains(number) else {
            throw .malformed("'\(shown(port))' is no port: those go from 1 to 65535")
        }
        return .tcp(host: String(host), port: UInt16(number))
    }

    /// Whether it may be a host name or a numeric address without colons.
    static func isName(_ text: some StringProtocol) -> Bool {
        (1...253).contains(text.utf8.count)
            && text.utf8.allSatisfy { isHexadecimal($0) || isLetter($0) || $0 == 45 || $0 == 46 || $0 == 95 }
    }

    /// Whether it may be an address of version 6, with the name of an interface after '%' where it needs one.
    static func isIPv6(_ text: some StringProtocol) -> Bool {
        let parts = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
        return text.contains(":") && parts[0].utf8.count <= 45
            && parts[0].utf8.allSatisfy { isHexadecimal($0) || $0 == 58 || $0 == 46 }
            && (parts.count == 1 || (isName(parts[1]) && parts[1].utf8.count <= 15))
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (97...122).contains(byte | 0x20) }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (97...102).contains(byte | 0x20)
    }

    private static func number(_ text: Substring) -> Int? {
        text.utf8.allSatisfy { (48...57).contains($0) } && text.utf8.count <= 9 ? Int(text) : nil
    }

    private static func shown(_ text: some StringProtocol) -> String {
        text.utf8.count <= 60 ? String(text) : text.prefix(60) + "…"
    }
}
