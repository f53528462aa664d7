import KVTCSystem

/// The servers of a fleet as the tier uses them: ``RedisClient``, and in tests what plays it.
protocol FleetServers: Sendable {
    /// Sends commands to the servers of their keys. `done` is called once for each, by the deadline (`MonotonicClock`) at latest, on any
    /// thread. Never blocks.
    func send(
        _ commands: [RedisCommand], until deadline: UInt64,
        _ done: @escaping @Sendable (Int, Result<RESPValue, RedisFault>) -> Void)

    /// Sends a command to one of the masters.
    func send(
        _ command: RedisCommand, to master: RedisAddress, until deadline: UInt64,
        _ done: @escaping @Sendable (Result<RESPValue, RedisFault>) -> Void)

    /// Sends a command to all masters; `done` is called once, with what each answered.
    func onEachMaster(
        _ command: RedisCommand, until deadline: UInt64,
        _ done: @escaping @Sendable ([(master: RedisAddress, result: Result<RESPValue, RedisFault>)]) -> Void)

    /// The servers that keep values; of a cluster that was not reached yet, those that were named.
    var masters: [RedisAddress] { get }

    /// Whether all servers that are known are left alone for now, so that asking them would be in vain.
    var isAway: Bool { get }

    /// How the servers are that were asked.
    func status() -> [NodeStatus]

    /// Ends all connections; what has no answer yet gets a fault.
    func close()
}

extension RedisClient: FleetServers {
    var isAway: Bool {
        let nodes = state.withLock { Array($0.nodes.values) }
        return !nodes.isEmpty && nodes.allSatisfy(\.isOpen)
    }
}

extension FleetServers {
    /// How long what nothing waits for may take.
    private static var patience: UInt64 { 2_000_000_000 }

    /// Removes a value that is none, as soon as that can be done.
    func removeDamaged(_ name: [UInt8]) {
        send([.unlink(name)], until: MonotonicClock.nanoseconds + Self.patience) { _, _ in }
    }

    /// Has a value live so long from now.
    func renew(_ name: [UInt8], seconds: UInt32) {
        let command = RedisCommand.expire(name, milliseconds: Int(seconds) * 1000)
        send([command], until: MonotonicClock.nanoseconds + Self.patience) { _, _ in }
    }

    /// Sends commands and waits for all answers, for threads that have the time.
    func exchange(_ commands: [RedisCommand], milliseconds: Int) -> [Result<RESPValue, RedisFault>] {
        guard !commands.isEmpty else { return [] }
        let answers = Monitor<(results: [Result<RESPValue, RedisFault>], missing: Int)>(
            (Array(repeating: .failure(.timeout), count: commands.count), commands.count))
        send(commands, until: MonotonicClock.nanoseconds + UInt64(milliseconds) * 1_000_000) { index, result in
            answers.update { answers in
                answers.results[index] = result
                answers.missing -= 1
            }
        }
        return answers.wait { $0.missing == 0 ? $0.results : nil }!
    }
}
