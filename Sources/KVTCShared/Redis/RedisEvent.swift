/// What changed between this machine and the servers.
public enum RedisEvent: Sendable, CustomStringConvertible {
    /// A server is left alone for now, for this reason.
    case lost(RedisAddress, RedisFault, String)
    /// It answers again.
    case back(RedisAddress)
    /// A cluster has other masters than before.
    case masters([RedisAddress])

    /// A line for the log.
    public var description: String {
        switch self {
        case .lost(let address, let fault, let reason):
            "\(address) is left alone for now (\(fault.rawValue)): \(reason)"
        case .back(let address): "\(address) answers again"
        case .masters(let addresses):
            "the cluster's masters: " + addresses.prefix(16).map(\.description).joined(separator: ", ")
                + (addresses.count > 16 ? " and \(addresses.count - 16) more" : "")
        }
    }
}
