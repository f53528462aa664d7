/// How a machine takes part in a fleet.
public struct FleetSettings: Sendable {
    /// The servers.
    public var redis: RedisSettings
    /// What the fleet's machines know and its servers do not.
    public var secret: FleetSecret
    /// What all names begin with, see ``isPrefix(_:)``. Fleets that share servers have different ones, or different secrets.
    public var prefix = "kvtc"
    /// Whether what is written can be read with the secret only. What is read is verified in any case, and may be either.
    public var encrypts = false
    /// How long ``FleetTier/ask(_:)`` waits for the first answer, and from one to the next; ten times as long in all.
    public var lookupMilliseconds = 5
    /// How long ``FleetTier/fetch(_:_:)`` waits without progress.
    public var pullMilliseconds = 1000
    /// How long a page that is not there is not asked for again.
    public var absentSeconds = 5
    /// Whether this machine writes what it is offered.
    public var writes = true
    /// Bytes a second that this machine writes, on average; nil for as many as can be.
    public var bytesPerSecond: UInt64?
    /// Nanoseconds for which servers are left alone that do not take what is written: at first, and at most.
    var pauses: ClosedRange<UInt64> = 250_000_000...30_000_000_000
    /// Nanoseconds between rounds of exchanging profiles: at first, as machines that start together wait for each other's, and at most. The
    /// cluster's eviction counts each as a use.
    var profileIntervals: ClosedRange<UInt64> = 1_000_000_000...30_000_000_000
    /// Bytes of a part of a profile.
    var profileChunkBytes = 1 << 20
    /// How long servers have for what nothing waits for.
    var behindMilliseconds = 5000

    /// Servers and secret, with what is usual.
    public init(redis: RedisSettings, secret: FleetSecret) { (self.redis, self.secret) = (redis, secret) }

    /// Whether all names may begin so: 1 to 64 letters, digits and `-_.:`. Braces would put all pages into one slot of a cluster, and
    /// others mean something to SCAN.
    public static func isPrefix(_ text: String) -> Bool {
        let others = Set("-_.:".utf8)
        return (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || others.contains($0)
            }
    }
}
