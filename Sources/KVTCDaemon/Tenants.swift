import Glibc
import KVTCSystem

/// Whose pages are whose, and who may see everybody's. Decided by what the kernel says of a peer, never by what it says.
public struct Tenants: Sendable, Equatable {
    /// Users that share the pages of another user; everybody else is a tenant of their own.
    var shared: [UInt32: UInt32] = [:]
    /// Users that see and steer everybody's pages and sessions, besides root and the user the daemon runs as.
    var administrators: Set<UInt32> = []
    /// The group whose members may do so too.
    var administratorGroup: UInt32?

    /// Every user a tenant, root the administrator.
    public init() {}

    /// The number under which a user's pages are kept: its own, or that of the first user it shares with.
    func tenant(of peer: PeerCredentials) -> UInt32 { shared[peer.uid] ?? peer.uid }

    func isAdministrator(_ peer: PeerCredentials) -> Bool {
        if peer.uid == 0 || peer.uid == geteuid() || administrators.contains(peer.uid) { return true }
        return administratorGroup.map { peer.gid == $0 || peer.groups.contains($0) } ?? false
    }

    /// Lets users share pages; the first one's number names them.
    mutating func share(_ users: [UInt32], key: String) throws(ConfigurationError) {
        guard let first = users.first else { throw ConfigurationError(key: key, "at least one user is needed") }
        for user in users {
            guard shared.updateValue(first, forKey: user) == nil else {
                throw ConfigurationError(key: key, "user \(user) is listed twice")
            }
        }
    }

    /// A user's number from its name or number.
    static func user(_ name: String, key: String) throws(ConfigurationError) -> UInt32 {
        if let number = UInt32(name) { return number }
        guard let entry = getpwnam(name) else { throw ConfigurationError(key: key, "there is no user \(name)") }
        return entry.pointee.pw_uid
    }

    /// A group's number from its name or number.
    static func group(_ name: String, key: String) throws(ConfigurationError) -> UInt32 {
        if let number = UInt32(name) { return number }
        guard let entry = getgrnam(name) else { throw ConfigurationError(key: key, "there is no group \(name)") }
        return entry.pointee.gr_gid
    }
}
