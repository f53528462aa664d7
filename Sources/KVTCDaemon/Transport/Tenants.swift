import Glibc
import KVTCProtocol
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

    /// Who is at the other end of a connection.
    struct Peer: Sendable {
        /// The number under which its pages are kept: of its user, or of the first user that one shares with.
        var tenant: UInt32
        var isAdministrator: Bool
    }

    /// The least number of a container's tenant. Users have lesser ones: from here on several interfaces of the kernel take them
    /// for negative, and systemd keeps them out of use.
    static let firstContainer: UInt32 = 1 << 31

    /// The number under which the pages of a container's socket are kept; the same whenever the daemon starts. FNV-1a of the
    /// name, 32 bits, with the top bit set.
    static func tenant(ofContainer name: String) -> UInt32 {
        name.utf8.reduce(0x811C_9DC5) { ($0 ^ UInt32($1)) &* 0x0100_0193 } | firstContainer
    }

    /// Who a peer is; throws where its user does not say that.
    func identify(
        _ socket: UnixConnection, at door: DaemonServer.Door, _ namespace: UserNamespace
    ) throws(WireError) -> Peer {
        if let tenant = door.tenant { return Peer(tenant: tenant, isAdministrator: false) }
        let uid = socket.peer.uid
        guard !namespace.isUnknown(user: uid) else {
            throw WireError(
                .forbidden,
                "user \(uid) stands for all users that the daemon's user namespace does not map: run kvtcd outside of it, "
                    + "or give each container a socket of its own ([containers] in kvtcd.toml)")
        }
        guard uid < Self.firstContainer else {
            throw WireError(
                .forbidden, "users from \(Self.firstContainer) on are no tenants: those numbers are containers'")
        }
        // In a container that maps no users of its own, root can become any user, and images agree on the numbers of others.
        guard socket.isPeerInSameProcessNamespace else {
            throw WireError(
                .forbidden,
                "user \(uid) of another process namespace may be that of any container: give each container a socket of its "
                    + "own ([containers] in kvtcd.toml)")
        }
        return Peer(tenant: shared[uid] ?? uid, isAdministrator: isAdministrator(socket.peer, namespace))
    }

    private func isAdministrator(_ peer: PeerCredentials, _ namespace: UserNamespace) -> Bool {
        if peer.uid == 0 || peer.uid == geteuid() || administrators.contains(peer.uid) { return true }
        guard let group = administratorGroup, !namespace.isUnknown(group: group) else { return false }
        return peer.gid == group || peer.groups.contains(group)
    }

    /// A user's number from its name or number; nil when there is no such user.
    static func user(_ name: String) -> UInt32? { UInt32(name) ?? getpwnam(name)?.pointee.pw_uid }

    /// A group's number from its name or number.
    static func group(_ name: String, key: String) throws(ConfigurationError) -> UInt32 {
        if let number = UInt32(name) { return number }
        guard let entry = getgrnam(name) else { throw ConfigurationError(key: key, "there is no group \(name)") }
        return entry.pointee.gr_gid
    }
}
