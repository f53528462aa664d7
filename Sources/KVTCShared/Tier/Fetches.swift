import DequeModule
import KVTCStore
import KVTCSystem

/// Brings pages, each once at a time however many want it, so many at a time.
final class Fetches: Sendable {
    typealias Done = @Sendable (Int, SharedOutcome) -> Void

    /// Requests without an answer at a time: enough to keep servers busy, few enough to stay within their deadlines.
    static let window = 64

    private struct Flight {
        /// Tells this flight from an earlier one of the same key, whose answer may come late.
        var number: UInt64
        var waiters: [(index: Int, done: Done)]
        var isSent = false
        /// Its page has been removed meanwhile.
        var isCancelled = false
    }

    private struct State {
        var flights: [StoreKey: Flight] = [:]
        var queue: Deque<StoreKey> = []
        /// Outcomes that are known and not told yet, since that is done on the own thread.
        var known: [(waiters: [(index: Int, done: Done)], outcome: SharedOutcome)] = []
        var sent = 0
        var lastNumber: UInt64 = 0
        /// When a server answered last.
        var lastAnswer: UInt64 = 0
        var isClosing = false
    }

    private let state = Monitor(State())
    private let thread = Monitor<Thread?>(nil)
    private let settings: FleetSettings
    private let servers: any FleetServers
    private let names: FleetNames
    private let tally: Tally

    init(_ settings: FleetSettings, servers: any FleetServers, names: FleetNames, tally: Tally) {
        (self.settings, self.servers, self.names, self.tally) = (settings, servers, names, tally)
    }

    /// - Parameter note: hears what came of each page, before those who wait for it.
    func start(_ note: @escaping @Sendable (StoreKey, SharedOutcome) -> Void) throws(SystemError) {
        let started = try Thread.start(name: "kvtc-bring") { [self] in run(note) }
        thread.update { $0 = started }
    }

    func add(_ keys: [StoreKey], isAbsent: [Bool], _ done: @escaping Done) {
        let isClosing = state.update { state -> Bool in
            for (index, key) in keys.enumerated() where !state.isClosing {
                if isAbsent[index] {
                    state.known.append(([(index, done)], .absent))
                } else if state.flights[key]?.isCancelled == false {
                    state.flights[key]!.waiters.append((index, done))
                } else {
                    if let cancelled = state.flights[key] { state.known.append((cancelled.waiters, .absent)) }
                    state.lastNumber += 1
                    state.flights[key] = Flight(number: state.lastNumber, waiters: [(index, done)])
                    state.queue.append(key)
                }
            }
            return state.isClosing
        }
        // There may be no thread any more that could.
        if isClosing { for index in keys.indices { done(index, .fault) } }
    }

    /// What is being brought and has been removed meanwhile is absent.
    func cancel(_ keys: [StoreKey]) {
        state.withLock { state in
            guard !state.flights.isEmpty else { return }
            for key in keys { state.flights[key]?.isCancelled = true }
        }
    }

    /// Nothing more is brought: what is not there yet is a fault.
    func beginClosing() {
        state.update { state in
            state.isClosing = true
            state.known += state.flights.values.map { ($0.waiters, .fault) }
            (state.flights, state.queue) = ([:], [])
        }
    }

    /// Waits until all outcomes are told.
    func close() {
        beginClosing()
        thread.update { thread -> Thread? in
            defer { thread = nil }
            return thread
        }?.join()
    }

    // MARK: The thread

    private struct Work {
        var known: [(waiters: [(index: Int, done: Done)], outcome: SharedOutcome)]
        var keys: [(key: StoreKey, number: UInt64)]
        var isLast: Bool
    }

    private func run(_ note: @escaping @Sendable (StoreKey, SharedOutcome) -> Void) {
        while true {
            let work = state.wait { Fetches.nextWork(&$0) }!
            for (waiters, outcome) in work.known { for waiter in waiters { waiter.done(waiter.index, outcome) } }
            if work.isLast { return }
            if !work.keys.isEmpty { send(work.keys, note) }
        }
    }

    private static func nextWork(_ state: inout State) -> Work? {
        var keys: [(StoreKey, UInt64)] = []
        while state.sent < window, let key = state.queue.popFirst() {
            // The key of a flight that another took the place of is in the queue twice.
            guard let flight = state.flights[key], !flight.isSent else { continue }
            state.flights[key]!.isSent = true
            state.sent += 1
            keys.append((key, flight.number))
        }
        guard !keys.isEmpty || !state.known.isEmpty || state.isClosing else { return nil }
        defer { state.known = [] }
        return Work(known: state.known, keys: keys, isLast: state.isClosing)
    }

    private func send(
        _ keys: [(key: StoreKey, number: UInt64)], _ note: @escaping @Sendable (StoreKey, SharedOutcome) -> Void
    ) {
        let pages = names.pages(keys.lazy.map(\.key))
        let now = MonotonicClock.nanoseconds
        let deadline = now + UInt64(max(1, settings.pullMilliseconds)) * 1_000_000
        servers.send(pages.map { .get($0.name) }, until: deadline) { [self] index, result in
            let outcome = outcome(result, pages[index])
            note(keys[index].key, outcome)
            if case .hit = outcome { tally.count { $0.fetches.record(MonotonicClock.nanoseconds - now) } }
            land(keys[index], outcome, result, sentAt: now)
        }
    }

    private func land(
        _ flown: (key: StoreKey, number: UInt64), _ outcome: SharedOutcome, _ result: Result<RESPValue, RedisFault>,
        sentAt: UInt64
    ) {
        let told = state.update { state -> [(waiters: [(index: Int, done: Done)], outcome: SharedOutcome)] in
            state.sent -= 1
            var told: [(waiters: [(index: Int, done: Done)], outcome: SharedOutcome)] = []
            if let flight = state.flights[flown.key], flight.number == flown.number {
                state.flights[flown.key] = nil
                told.append((flight.waiters, flight.isCancelled ? .absent : outcome))
            }
            if case .success = result { state.lastAnswer = MonotonicClock.nanoseconds }
            if case .failure(.timeout) = result, state.lastAnswer < sentAt {
                // No server has answered for as long as this one was given: those that wait would wait in vain, one after another.
                for key in state.queue where state.flights[key]?.isSent == false {
                    told.append((state.flights.removeValue(forKey: key)!.waiters, .fault))
                }
                state.queue = []
            }
            return told
        }
        for (waiters, outcome) in told { for waiter in waiters { waiter.done(waiter.index, outcome) } }
    }

    // MARK: Answers

    private func outcome(_ result: Result<RESPValue, RedisFault>, _ page: PageName) -> SharedOutcome {
        switch result {
        case .success(.bulk(let value)): return open(value, page)
        case .success(.null):
            tally.count { $0.fetchedAbsent += 1 }
            return .absent
        case .success:
            tally.count { $0.count(.malformed) }
            return .fault
        case .failure(let fault):
            tally.count { $0.count(fault) }
            return .fault
        }
    }

    private func open(_ value: [UInt8], _ page: PageName) -> SharedOutcome {
        do throws(SharedValue.Fault) {
            let (head, block) = try SharedValue.open(value, key: page.key)
            tally.count {
                $0.fetchedPages += 1
                $0.fetchedBytes += UInt64(value.count)
            }
            if head.attributes.ttl > 0 { servers.renew(page.name, seconds: head.attributes.ttl) }
            return .hit(head.page, block)
        } catch {
            tally.count { $0.count(error) }
            if error != .newer { servers.removeDamaged(page.name) }
            return .fault
        }
    }
}
