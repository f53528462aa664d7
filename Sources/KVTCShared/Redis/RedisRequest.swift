import KVTCSystem

/// A command under way.
struct RedisRequest: Sendable {
    typealias Done = @Sendable (Result<RESPValue, RedisFault>) -> Void

    let command: RedisCommand
    /// On `MonotonicClock`, in nanoseconds.
    let deadline: UInt64
    let since: UInt64
    /// Called once.
    let done: Done
    /// How many servers sent it on.
    private(set) var hops = 0
    /// Whether the server takes it only as an exception, while it gets the slot.
    private(set) var isAsking = false
    /// Whether it is the client's own: it neither counts nor is sent on.
    var isInternal = false

    init(_ command: RedisCommand, since: UInt64, deadline: UInt64, isInternal: Bool = false, _ done: @escaping Done) {
        (self.command, self.since, self.deadline, self.done) = (command, since, deadline, done)
        self.isInternal = isInternal
    }

    /// Until when a large value is waited for, where bytes came last at `lastByte`: as long as any come no later one after another than
    /// the deadline leaves for all, ten times that at most. How fast they come is up to the network.
    func limit(lastByte: UInt64) -> UInt64 {
        let patience = deadline - min(deadline, since)
        let (latest, isBeyond) = patience.multipliedReportingOverflow(by: 10)
        let end = isBeyond ? .max : since.addingReportingOverflow(latest).overflow ? .max : since + latest
        let (next, isNever) = lastByte.addingReportingOverflow(patience)
        return max(deadline, min(isNever ? .max : next, end))
    }

    /// The same for another server.
    func sentOn(isAsking: Bool) -> RedisRequest {
        var other = self
        other.hops += 1
        other.isAsking = isAsking
        return other
    }
}
