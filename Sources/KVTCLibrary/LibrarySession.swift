import Glibc
import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCSystem

/// A token stream that outlives its connections: what is behind `kvtc_session`.
final class LibrarySession: Sendable {
    /// A connection with the session open on it.
    struct Link {
        let client: Client
        let session: ClientSession
        let arena: ClientArena?
    }

    private struct State {
        var terms: SessionTerms
        var link: Link?
        var breaker = Breaker()
        /// The process that the link is of: one that was forked shares the socket with its parent.
        var process = getpid()
        var tokenBytes: Int
    }

    /// Connections that a call may lose before it fails.
    private static let attempts = 3
    private let state: Monitor<State>

    init(_ terms: SessionTerms) {
        state = Monitor(State(terms: terms, tokenBytes: terms.tokenBytes ?? 0))
    }

    /// Bytes of one token; 0 while only the daemon knows.
    var tokenBytes: Int { state.withLock { $0.tokenBytes } }

    /// Tokens of a full page.
    var pageTokens: Int { state.withLock { Int($0.terms.request.pageTokens) } }

    func setPolicy(_ policy: Policy) throws(Failure) {
        // C says it with the other options, once.
        var policy = policy
        policy.code = state.withLock { $0.terms.request.policy.code }
        try perform { (link) throws(ClientError) in _ = try link.session.setPolicy(policy) }
        state.withLock { $0.terms.request.policy = policy }
    }

    /// Carries out a request, which must bear to be repeated, on a connection that is there or made now.
    func perform<Value>(_ body: (Link) throws(ClientError) -> Value) throws(Failure) -> Value {
        try state.withLock { (state) throws(Failure) in
            let now = MonotonicClock.nanoseconds
            if state.process != getpid() { Self.leave(&state) }
            try state.breaker.enter(at: now)
            let end = now + state.terms.patience
            do throws(ClientError) {
                let value = try Self.attempt(&state, until: end, body)
                state.breaker.succeed()
                return value
            } catch {
                if error.isAway {
                    state.link?.client.close()
                    state.link = nil
                    state.breaker.fail(at: MonotonicClock.nanoseconds)
                }
                throw .client(error)
            }
        }
    }

    private static func attempt<Value>(
        _ state: inout State, until end: UInt64, _ body: (Link) throws(ClientError) -> Value
    ) throws(ClientError) -> Value {
        for _ in 1..<attempts {
            do throws(ClientError) {
                return try body(try link(&state, until: end))
            } catch {
                // A session that the daemon ended is opened again; a timeout has used up the time.
                guard error.meansAnew, MonotonicClock.nanoseconds < end else { throw error }
                state.link?.client.close()
                state.link = nil
            }
        }
        return try body(try link(&state, until: end))
    }

    private static func link(_ state: inout State, until end: UInt64) throws(ClientError) -> Link {
        if let link = state.link {
            link.client.limitWaits(until: end)
            return link
        }
        let link = try state.terms.connect(until: end)
        state.link = link
        state.tokenBytes = link.session.tokenBytes
        return link
    }

    /// Lets go of the parent's connection without ending it.
    private static func leave(_ state: inout State) {
        // Justified: its end would shut the parent's socket down, so that it never ends here.
        if let link = state.link { _ = Unmanaged.passRetained(link.client) }
        state.link = nil
        state.process = getpid()
    }

    func close() {
        state.withLock { state in
            if state.process != getpid() { Self.leave(&state) }
            state.link?.client.close()
            state.link = nil
        }
    }
}

extension ClientError {
    /// Whether a new connection or session may do what this one did not.
    fileprivate var meansAnew: Bool {
        switch self {
        case .connectionLost: true
        case .refused(let error): error.code == .unknownSession || error.code == .shuttingDown
        default: false
        }
    }
}
