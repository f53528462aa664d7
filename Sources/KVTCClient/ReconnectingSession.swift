import Glibc
import KVTCModel
import KVTCProtocol
import KVTCSystem

/// A token stream that goes on when the daemon restarts, crashes or is replaced: it connects again, opens the session again
/// with the policy it had, and repeats the request.
///
/// Every request here bears that. What was acknowledged is still there, so a repeated push answers `PushOutcome.present`;
/// a repeated fetch begins anew; leases end with their connection and are not offered. The new session has no tokens yet:
/// its window begins with the next page pushed, and pages pushed before stay as they are, never coded with less protection.
/// A request that fails on three connections in a row throws. One request at a time; further threads wait.
public final class ReconnectingSession: Sendable {
    /// How to reach the daemon, and what to ask of it.
    public struct Terms: Sendable {
        /// The socket; nil: see ``Client/socketPath(_:)``.
        public var socketPath: String?
        /// The client's name, for the daemon's log.
        public var name = "kvtc-swift"
        /// Seconds that a reply may take.
        public var timeoutSeconds = 60
        /// Seconds to try to connect again for; 0: not at all.
        public var reconnectSeconds = 30
        /// Bytes of shared memory for pages; 0 sends them through the socket.
        public var arenaBytes = 0

        /// The usual terms.
        public init() {}
    }

    private struct Link {
        var client: Client
        var session: ClientSession
        var arena: ClientArena?
    }

    private struct State {
        var request: OpenSessionRequest
        let identity: [UInt8]
        /// Nil from a loss until the next request.
        var link: Link?
    }

    private static let attempts = 3
    private let terms: Terms
    private let state: Monitor<State>

    /// Connects and opens the session; for `identity` see ``ClientSession``.
    public init(
        _ request: OpenSessionRequest, identity: [UInt8] = [], terms: Terms = Terms()
    ) throws(ClientError) {
        self.terms = terms
        var state = State(request: request, identity: identity)
        state.link = try Self.connect(state, terms)
        self.state = Monitor(state)
    }

    private static func connect(_ state: State, _ terms: Terms) throws(ClientError) -> Link {
        let client = try Client(
            socketPath: terms.socketPath, name: terms.name, timeoutSeconds: terms.timeoutSeconds)
        let session = try ClientSession(client, state.request, identity: state.identity)
        return Link(
            client: client, session: session,
            arena: terms.arenaBytes > 0 ? try client.makeArena(bytes: terms.arenaBytes) : nil)
    }

    /// Pushes pages; see ``ClientSession/push(_:through:)``.
    public func push(_ pages: [ClientPage]) throws(ClientError) -> [PushOutcome] {
        try perform { (session, arena) throws(ClientError) in try session.push(pages, through: arena) }
    }

    /// Whole pages; nil for those that are not to be had. See ``ClientSession/fetch(_:through:lease:)``.
    public func fetch(_ keys: [PageKey]) throws(ClientError) -> [[UInt8]?] {
        try perform { (session, arena) throws(ClientError) in try session.fetch(keys, through: arena) }
    }

    /// Which of the pages are there.
    public func lookup(_ keys: [PageKey]) throws(ClientError) -> LookupReply {
        try perform { (session, _) throws(ClientError) in
            try session.client.call(LookupRequest(session: session.number, leaseMs: 0, keys: keys))
        }
    }

    /// Changes the policy, also for later connections.
    public func setPolicy(_ policy: Policy) throws(ClientError) -> SetPolicyReply {
        let reply = try perform { (session, _) throws(ClientError) in
            try session.setPolicy(policy)
        }
        state.withLock { $0.request.policy = policy }
        return reply
    }

    /// Cuts the session's end; see ``ClientSession/truncate(to:)``.
    public func truncate(to tokens: Int) throws(ClientError) -> TruncateReply {
        try perform { (session, _) throws(ClientError) in try session.truncate(to: tokens) }
    }

    /// Makes the session's pages durable.
    public func flush() throws(ClientError) -> FlushReply {
        try perform { (session, _) throws(ClientError) in
            try session.client.call(FlushRequest(session: session.number))
        }
    }

    /// Ends the session; its pages stay.
    public func close() {
        state.withLock { state in
            try? state.link?.session.close()
            state.link?.client.close()
            state.link = nil
        }
    }

    private func perform<Value>(
        _ body: (ClientSession, ClientArena?) throws(ClientError) -> Value
    ) throws(ClientError) -> Value {
        try state.withLock { (state) throws(ClientError) in
            var attempt = 1
            while true {
                do throws(ClientError) {
                    if state.link == nil { state.link = try reconnect(state) }
                    return try body(state.link!.session, state.link!.arena)
                } catch {
                    guard error.meansReconnecting, attempt < Self.attempts, terms.reconnectSeconds > 0 else {
                        throw error
                    }
                    attempt += 1
                    state.link?.client.close()
                    state.link = nil
                }
            }
        }
    }

    private func reconnect(_ state: State) throws(ClientError) -> Link {
        let deadline = MonotonicClock.nanoseconds + UInt64(terms.reconnectSeconds) * 1_000_000_000
        var pause: UInt32 = 20_000
        while true {
            do throws(ClientError) {
                return try Self.connect(state, terms)
            } catch {
                var isTemporary = error.meansReconnecting
                if case .unreachable = error { isTemporary = true }
                guard isTemporary, MonotonicClock.nanoseconds < deadline else { throw error }
            }
            usleep(pause)
            pause = min(2 * pause, 1_000_000)
        }
    }
}

extension ClientError {
    /// Whether the connection is over, or about to be, and another one may do better.
    var meansReconnecting: Bool {
        switch self {
        case .connectionLost: true
        case .refused(let error): error.code == .shuttingDown
        default: false
        }
    }
}
