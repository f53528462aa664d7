import KVTCSystem
import Synchronization

/// How a server is.
public struct NodeStatus: Sendable {
    /// Where it is.
    public let address: RedisAddress
    /// "closed" while it is asked, "open" while it is left alone, "half-open" while it has to prove itself.
    public let breaker: String
    /// Since when, on `MonotonicClock`.
    public let since: UInt64
    /// What went wrong last, and how that was said; nil where nothing ever did.
    public let lastFault: (fault: RedisFault, reason: String)?
    /// Commands without an answer yet.
    public let inFlight: Int
    /// Bytes that went there and came from there.
    public let bytesOut: UInt64, bytesIn: UInt64
    /// How long answers that came in time took, in all lanes.
    package let latency: LatencyHistogram
    /// Microseconds that this share of those answers did not exceed; 0 without any.
    public func microseconds(_ share: Double) -> Double { latency.percentile(share) }
}

/// A server: a connection for each lane, made when it is needed, and one breaker for all of them.
final class Node: Sendable {
    private struct State {
        var breaker: Breaker
        var lanes = [Lane?](repeating: nil, count: RedisLane.allCases.count)
        var lastFault: (fault: RedisFault, reason: String)?
        var latency = LatencyHistogram()
        var hasEnded = false
    }

    let address: RedisAddress
    let settings: RedisSettings
    private let log: @Sendable (RedisEvent) -> Void
    private let redirect: @Sendable (RedisRequest, RedisRedirect, RedisAddress) -> Bool
    private let state: Mutex<State>
    private let bytesIn = Atomic<UInt64>(0)
    private let bytesOut = Atomic<UInt64>(0)

    /// - Parameter redirect: Takes a command over that the server sent on; false when it does not.
    init(
        _ address: RedisAddress, _ settings: RedisSettings, log: @escaping @Sendable (RedisEvent) -> Void,
        redirect: @escaping @Sendable (RedisRequest, RedisRedirect, RedisAddress) -> Bool
    ) {
        (self.address, self.settings, self.log, self.redirect) = (address, settings, log, redirect)
        state = Mutex(State(breaker: Breaker(now: MonotonicClock.nanoseconds)))
    }

    /// Sends commands over a lane's connection. What cannot be sent is answered before this returns.
    func accept(_ requests: [RedisRequest], _ kind: RedisLane) {
        let lane: Result<Lane, RedisFault> = state.withLock { state in
            if state.breaker.state == .open { return .failure(.open) }
            return self.lane(kind, &state)
        }
        var fault: RedisFault?
        switch lane {
        case .failure(let reason): fault = reason
        case .success(let lane): fault = lane.put(requests)
        }
        if let fault { for request in requests { request.done(.failure(fault)) } }
    }

    private func lane(_ kind: RedisLane, _ state: inout State) -> Result<Lane, RedisFault> {
        guard !state.hasEnded else { return .failure(.unreachable) }
        if let lane = state.lanes[kind.rawValue] { return .success(lane) }
        do throws(SystemError) {
            let lane = try Lane(kind)
            try Thread.start(name: "kvtc-\(kind)") { [self] in LaneRunner(self, lane).run() }.detach()
            state.lanes[kind.rawValue] = lane
            return .success(lane)
        } catch {
            state.lastFault = (.unreachable, "\(error)")
            return .failure(.unreachable)
        }
    }

    /// Whether nothing but probes is sent.
    var isOpen: Bool { state.withLock { $0.breaker.state == .open } }

    var status: NodeStatus {
        state.withLock { state in
            NodeStatus(
                address: address, breaker: state.breaker.state.rawValue, since: state.breaker.since,
                lastFault: state.lastFault,
                inFlight: state.lanes.reduce(0) { $0 + ($1?.owed ?? 0) }, bytesOut: bytesOut.load(ordering: .relaxed),
                bytesIn: bytesIn.load(ordering: .relaxed), latency: state.latency)
        }
    }

    /// Takes nothing more and ends its connections, at once or when their commands are answered.
    func end(_ how: Lane.End) {
        let lanes = state.withLock { state in
            state.hasEnded = true
            return state.lanes
        }
        for lane in lanes { lane?.end(how) }
    }

    // MARK: What the connections' threads report

    func sent(_ count: Int) { bytesOut.add(UInt64(count), ordering: .relaxed) }

    func received(_ count: Int) { bytesIn.add(UInt64(count), ordering: .relaxed) }

    func sendOn(_ request: RedisRequest, _ to: RedisRedirect) -> Bool { redirect(request, to, address) }

    var nextProbe: UInt64? { state.withLock { $0.breaker.nextProbe } }

    func takeProbe(now: UInt64) -> Bool { state.withLock { $0.breaker.takeProbe(now: now) } }

    func probed(_ result: Result<RESPValue, RedisFault>) {
        let isWell = if case .success = result { true } else { false }
        state.withLock { $0.breaker.probed(succeeded: isWell, now: MonotonicClock.nanoseconds) }
    }

    func connected(now: UInt64) { state.withLock { $0.breaker.connected(now: now) } }

    func answered(_ lane: RedisLane, _ request: RedisRequest, now: UInt64) {
        let hasClosed = state.withLock { state in
            state.latency.record(now - min(now, request.since))
            return state.breaker.succeeded(lane, now: now)
        }
        if hasClosed { log(.back(address)) }
    }

    func failed(_ lane: RedisLane, _ request: RedisRequest, _ fault: RedisFault, _ reason: String, now: UInt64) {
        let reason = Node.shown(reason)
        let hasOpened = state.withLock { state in
            state.lastFault = (fault, reason)
            return state.breaker.failed(fault, lane, waitingSince: request.since, now: now) && self.prepareProbe(&state)
        }
        if hasOpened { log(.lost(address, fault, reason)) }
    }

    func couldNotConnect(_ fault: RedisFault, _ reason: String) {
        let reason = Node.shown(reason)
        let hasOpened = state.withLock { state in
            state.lastFault = (fault, reason)
            return state.breaker.couldNotConnect(now: MonotonicClock.nanoseconds) && self.prepareProbe(&state)
        }
        if hasOpened { log(.lost(address, fault, reason)) }
    }

    /// The thread of lookups probes; it may have had nothing to do so far, or sleep until something else.
    private func prepareProbe(_ state: inout State) -> Bool {
        if case .success(let lane) = lane(.lookup, &state) { lane.wake.signal() }
        return true
    }

    /// What a server says, as a line of a log can have it.
    private static func shown(_ text: String) -> String {
        String(text.unicodeScalars.prefix(200).map { $0.value < 0x20 || $0.value == 0x7F ? " " : Character($0) })
    }
}
