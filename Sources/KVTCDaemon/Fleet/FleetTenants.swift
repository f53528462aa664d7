import Glibc
import Synchronization

/// What tenants are called on every machine of a fleet: numbers of users differ from one to the next.
final class FleetTenants: Sendable {
    private struct Names: Sendable {
        var tenants: [UInt32: String]
        var users: [UInt32: String] = [:]
    }

    private let names: Mutex<Names>

    init(_ configuration: DaemonConfiguration) { names = Mutex(Names(tenants: Self.named(configuration))) }

    /// Goes by another configuration from now on.
    func adopt(_ configuration: DaemonConfiguration) {
        names.withLock { $0 = Names(tenants: Self.named(configuration)) }
    }

    /// `group:` and the name that `[tenants]` has for users that share, `container:` and that of `[containers]`, `user:` and the user's
    /// name, `uid:` and the number of a user without one.
    func name(of tenant: UInt32) -> String {
        names.withLock { names in
            if let known = names.tenants[tenant] ?? names.users[tenant] { return known }
            let name = Self.user(tenant).map { "user:\($0)" } ?? "uid:\(tenant)"
            names.users[tenant] = name
            return name
        }
    }

    private static func named(_ configuration: DaemonConfiguration) -> [UInt32: String] {
        var names: [UInt32: String] = [:]
        for name in configuration.containers.keys { names[Tenants.tenant(ofContainer: name)] = "container:\(name)" }
        for (key, value) in configuration.named where key.hasPrefix("tenants.") {
            guard case .list(let users) = value, let first = users.first else { continue }
            let tenant: UInt32? =
                switch first {
                case .text(let name): Tenants.user(name)
                case .integer(let number): UInt32(exactly: number)
                default: nil
                }
            if let tenant { names[tenant] = "group:\(key.dropFirst("tenants.".count))" }
        }
        return names
    }

    private static func user(_ number: UInt32) -> String? {
        var (entry, found) = (passwd(), UnsafeMutablePointer<passwd>?.none)
        var room = [CChar](repeating: 0, count: 16_384)
        guard getpwuid_r(number, &entry, &room, room.count, &found) == 0, found != nil else { return nil }
        return String(cString: entry.pw_name)
    }
}
