import KVTCSystem
import Synchronization

/// A client of a Redis or Valkey server, or of a cluster of them.
///
/// Whatever takes time happens on threads of its own, one for each connection, which begin with use. Commands that cannot be sent
/// are answered before ``send(_:until:_:)`` returns; all others by their deadline.
public final class RedisClient: Sendable {
    /// How often a command is sent on before it is given up.
    static let mostHops = 5

    struct State {
        var nodes: [RedisAddress: Node] = [:]
        var map: ClusterMap?
        var isRefreshing = false
        var refreshedAt: UInt64?
        var whenRefreshed: [@Sendable () -> Void] = []
        var isClosed = false
    }

    let settings: RedisSettings
    let log: @Sendable (RedisEvent) -> Void
    let state = Mutex(State())

    /// A client that is connected to nothing yet.
    /// - Parameter log: Called on the client's threads when a server is lost or back, or the masters change.
    public init(_ settings: RedisSettings, log: @escaping @Sendable (RedisEvent) -> Void = { _ in }) {
        (self.settings, self.log) = (settings, log)
    }

    deinit { close() }

    /// Sends commands to the servers of their keys, all at once. `done` is called once for each, with its index: on a thread of the
    /// client's as answers come, in any order, and with ``RedisFault/timeout`` at the deadline (nanoseconds on `MonotonicClock`) at
    /// latest (see ``RedisLane/fetch``); or on the calling thread, before this returns, where a command cannot be sent. It should not
    /// take long.
    public func send(
        _ commands: [RedisCommand], until deadline: UInt64,
        _ done: @escaping @Sendable (Int, Result<RESPValue, RedisFault>) -> Void
    ) {
        let now = MonotonicClock.nanoseconds
        var requests: [RedisRequest] = []
        requests.reserveCapacity(commands.count)
        for (index, command) in commands.enumerated() {
            requests.append(RedisRequest(command, since: now, deadline: deadline) { done(index, $0) })
        }
        dispatch(requests, now)
    }

    /// Sends a command to one of ``masters``, as iterating over its keys wants it.
    public func send(
        _ command: RedisCommand, to master: RedisAddress, until deadline: UInt64,
        _ done: @escaping @Sendable (Result<RESPValue, RedisFault>) -> Void
    ) {
        let request = RedisRequest(
            command, since: MonotonicClock.nanoseconds, deadline: deadline, isInternal: true, done)
        guard let node = state.withLock({ node(master, &$0) }) else { return done(.failure(.unreachable)) }
        node.accept([request], command.lane)
    }

    /// Sends a command to every master, once those are known. `done` is called once, with what each answered; where none is known, with
    /// why the servers of the URL did not say.
    public func onEachMaster(
        _ command: RedisCommand, until deadline: UInt64,
        _ done: @escaping @Sendable ([(master: RedisAddress, result: Result<RESPValue, RedisFault>)]) -> Void
    ) {
        withMasters { [self] masters in
            let gather = Gathering(masters.count) { results in
                done(zip(masters, results).map { (master: $0, result: $1) })
            }
            for (index, master) in masters.enumerated() {
                send(command, to: master, until: deadline) { gather.take(index, $0) }
            }
        }
    }

    /// The masters known: of a cluster that was not reached yet, the servers of the URL.
    public var masters: [RedisAddress] { state.withLock { $0.map?.masters } ?? settings.url.addresses }

    /// How the servers are that were asked, in the order of their addresses.
    public func status() -> [NodeStatus] {
        state.withLock { Array($0.nodes.values) }.map(\.status).sorted { "\($0.address)" < "\($1.address)" }
    }

    /// Ends all connections. What is under way is answered with ``RedisFault/unreachable``.
    public func close() {
        let (nodes, waiting) = state.withLock { state in
            defer { (state.nodes, state.whenRefreshed, state.isClosed) = ([:], [], true) }
            return (Array(state.nodes.values), state.whenRefreshed)
        }
        for node in nodes { node.end(.closed) }
        for body in waiting { body() }
    }

    /// The server at an address; nil where no more are taken up.
    func node(_ address: RedisAddress, _ state: inout State) -> Node? {
        if let node = state.nodes[address] { return node }
        guard !state.isClosed, state.nodes.count < 2 * ClusterMap.mostMasters else { return nil }
        let node = Node(address, settings, log: log) { [weak self] in self?.redirect($0, $1, from: $2) ?? false }
        state.nodes[address] = node
        return node
    }
}

/// Waits for several results.
private final class Gathering: Sendable {
    private let state: Mutex<(results: [Result<RESPValue, RedisFault>?], missing: Int)>
    private let whenAll: @Sendable ([Result<RESPValue, RedisFault>]) -> Void

    init(_ count: Int, _ whenAll: @escaping @Sendable ([Result<RESPValue, RedisFault>]) -> Void) {
        state = Mutex(([Result<RESPValue, RedisFault>?](repeating: nil, count: count), count))
        self.whenAll = whenAll
        if count == 0 { whenAll([]) }
    }

    func take(_ index: Int, _ result: Result<RESPValue, RedisFault>) {
        let all: [Result<RESPValue, RedisFault>]? = state.withLock { state in
            state.results[index] = result
            state.missing -= 1
            return state.missing == 0 ? state.results.compactMap { $0 } : nil
        }
        if let all { whenAll(all) }
    }
}
