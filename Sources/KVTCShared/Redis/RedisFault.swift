/// Why a command has no answer.
public enum RedisFault: String, Error, CaseIterable, Sendable {
    /// None came by the deadline.
    case timeout
    /// No connection, or it ended.
    case unreachable
    /// The server failed lately and is left alone for a while; nothing was sent.
    case open
    /// The cluster does not serve this key now.
    case down
    /// The server is reading its data or runs a script.
    case loading
    /// The server has no memory for more.
    case full
    /// The server does not accept who asks, or not for this.
    case denied
    /// No TLS, or the server is not who it should be.
    case tls
    /// The answer is none.
    case malformed
    /// The answer is longer than the limit.
    case oversize
    /// The server says that it is an error.
    case refused
    /// Too much waits to be sent to the server already.
    case busy

    /// What an error that a server answers means, by its first word.
    init(answer: String) {
        switch answer.prefix(while: { $0 != " " }) {
        case "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "READONLY", "NOREPLICAS", "MOVED", "ASK": self = .down
        case "LOADING", "BUSY": self = .loading
        case "OOM": self = .full
        case "NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "-DENIED": self = .denied
        default: self = .refused
        }
    }
}

extension RedisFault {
    /// What it means as an answer to the first commands of a connection.
    init(greeting answer: String) {
        self.init(answer: answer)
        if self == .refused { self = answer.hasPrefix("ERR max number of clients") ? .unreachable : .denied }
    }
}

/// Where a server of a cluster sends its asker to.
package struct RedisRedirect: Hashable {
    enum Kind { case moved, ask }

    /// For good, or for this command only.
    let kind: Kind
    package let slot: Int
    /// Nil for another port of the server that was asked.
    let host: String?
    package let port: UInt16

    /// `MOVED 3999 127.0.0.1:6381`, `ASK 3999 :6381`; nil for anything else.
    package init?(_ answer: String) {
        let words = answer.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, words[0] == "MOVED" || words[0] == "ASK",
            let slot = Int(words[1]), (0..<HashSlot.count).contains(slot),
            // An IPv6 address comes without brackets.
            let colon = words[2].lastIndex(of: ":"),
            let port = UInt16(words[2][words[2].index(after: colon)...]), port > 0
        else { return nil }
        let host = words[2][..<colon]
        guard host.isEmpty || host == "?" || ClusterMap.isHost(host) else { return nil }
        (kind, self.slot, self.port) = (words[0] == "MOVED" ? .moved : .ask, slot, port)
        self.host = host.isEmpty || host == "?" ? nil : String(host)
    }
}
