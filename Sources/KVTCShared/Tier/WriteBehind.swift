import DequeModule
import KVTCStore
import KVTCSystem

/// Writes pages to the cluster, and removes them there, on a thread of its own after those who ask for it have gone on.
final class WriteBehind: Sendable {
    /// Pages that wait to be written, and to be removed.
    static let mostWaiting = 65_536
    static let mostRemovals = 262_144
    struct Offer {
        var key: StoreKey
        var attempts = 0
    }

    struct State {
        var offers: Deque<Offer> = []
        /// The keys of `offers`.
        var offered: Set<StoreKey> = []
        /// In their order, those that failed at the end; and those that are not in `removing` any more.
        var removals: Deque<StoreKey> = []
        /// Keys, each with a number that no other removal has.
        var removing: [StoreKey: UInt64] = [:]
        var lastRemoval: UInt64 = 0
        var writes: Pause
        var removalPause: Pause
        /// Whether the budget is spent.
        var isShort = false
        var isClosing = false
        /// Whether the thread does what it has taken.
        var isAtWork = false

        init(_ lengths: ClosedRange<UInt64>) { (writes, removalPause) = (Pause(lengths), Pause(lengths)) }
    }

    let state: Monitor<State>
    private let thread = Monitor<Thread?>(nil)
    let settings: FleetSettings
    let servers: any FleetServers
    let names: FleetNames
    let tally: Tally
    let budget: WriteBudget
    let readBlock: FleetTier.ReadBlock
    let log: @Sendable (FleetEvent) -> Void

    init(
        _ settings: FleetSettings, servers: any FleetServers, names: FleetNames, tally: Tally,
        readBlock: @escaping FleetTier.ReadBlock, log: @escaping @Sendable (FleetEvent) -> Void
    ) {
        (self.settings, self.servers, self.names, self.tally) = (settings, servers, names, tally)
        (self.readBlock, self.log) = (readBlock, log)
        state = Monitor(State(settings.pauses))
        budget = WriteBudget(bytesPerSecond: settings.bytesPerSecond)
    }

    /// - Parameter written: hears of each page that is there now.
    func start(_ written: @escaping @Sendable (StoreKey) -> Void) throws(SystemError) {
        let started = try Thread.start(name: "kvtc-share") { [self] in
            Thread.giveWay()
            var writer = PageWriter(self, written)
            while let work = nextWork() {
                switch work {
                case .remove(let keys): remove(now: keys)
                case .write(let offers): writer.write(offers)
                }
            }
        }
        thread.update { $0 = started }
    }

    func offer(_ keys: [StoreKey]) {
        let (full, fault, short) = state.update { state -> (Int, Bool, Bool) in
            var full = 0
            for key in keys where !state.offered.contains(key) && !state.isClosing {
                if state.offers.count >= Self.mostWaiting {
                    full += 1
                } else {
                    state.offers.append(Offer(key: key))
                    state.offered.insert(key)
                }
            }
            return (full, state.writes.reason != nil, state.isShort)
        }
        guard full > 0 else { return }
        tally.count { tally in
            if fault {
                tally.heldBack.fault += UInt64(full)
            } else if short {
                tally.heldBack.budget += UInt64(full)
            } else {
                tally.heldBack.queue += UInt64(full)
            }
        }
    }

    func remove(_ keys: [StoreKey]) {
        let lost = state.update { state -> Int in
            var lost = 0
            for key in keys where !state.isClosing {
                state.lastRemoval += 1
                if state.removing[key] != nil {
                    state.removing[key] = state.lastRemoval
                } else if state.removals.count >= Self.mostRemovals {
                    lost += 1
                } else {
                    state.removals.append(key)
                    state.removing[key] = state.lastRemoval
                }
            }
            return lost
        }
        guard lost > 0 else { return }
        tally.count { $0.removalsLost += UInt64(lost) }
        log(.removalsLost(lost))
    }

    /// Of the pages that wait to be removed the removals' numbers.
    func removals(_ keys: ArraySlice<StoreKey>) -> [UInt64?] {
        state.withLock { state in
            state.removing.isEmpty ? Array(repeating: nil, count: keys.count) : keys.map { state.removing[$0] }
        }
    }

    /// A page was written over instead of removed, unless it was to be removed once more since.
    func endRemoval(_ key: StoreKey, _ number: UInt64) {
        state.update { if $0.removing[key] == number { $0.removing[key] = nil } }
    }

    func report(_ statistics: inout SharedStatistics) {
        state.withLock { state in
            statistics.waiting = state.offers.count
            statistics.waitingRemovals = state.removing.count
            statistics.pausedFor = state.writes.reason
        }
    }

    /// Waits until all that waits is done, or some of it cannot be.
    func finish(until deadline: UInt64) {
        _ = state.wait(until: deadline) { state in
            let isDone = state.offers.isEmpty && state.removals.isEmpty && !state.isAtWork
            return isDone || state.writes.reason != nil || state.isClosing ? true : nil
        }
    }

    /// Nothing more is begun.
    func beginClosing() { state.update { $0.isClosing = true } }

    /// Waits until what was begun is done.
    func close() {
        beginClosing()
        thread.update { thread -> Thread? in
            defer { thread = nil }
            return thread
        }?.join()
    }

    // MARK: The thread

    private enum Work {
        case remove([StoreKey])
        case write([Offer])
    }

    private static let removalsAtATime = 512

    /// What is to be done next; nil when it closes.
    private func nextWork() -> Work? {
        state.update { $0.isAtWork = false }
        while true {
            let now = MonotonicClock.nanoseconds
            let pauseEnd = state.withLock { [$0.writes.end, $0.removalPause.end].filter { $0 > now }.min() }
            // The inner nil is the end.
            let work: Work?? = state.wait(until: pauseEnd) { state in
                let now = MonotonicClock.nanoseconds
                if state.isClosing { return .some(nil) }
                if !state.removals.isEmpty, state.removalPause.end <= now {
                    state.isAtWork = true
                    return .remove(Array(state.removals.prefix(Self.removalsAtATime)))
                }
                if !state.offers.isEmpty, state.writes.end <= now {
                    state.isAtWork = true
                    return .write(PageWriter.takeOffers(&state))
                }
                return nil
            }
            if let work { return work }
        }
    }

    private func remove(now taken: [StoreKey]) {
        let keys = zip(taken, removals(taken[...])).filter { $1 != nil }.map(\.0)
        let pages = names.pages(keys)
        let results = servers.exchange(pages.map { .unlink($0.name) }, milliseconds: settings.behindMilliseconds)
        var faults: [RedisFault] = []
        state.update { state in
            state.removals.removeFirst(taken.count)
            for (key, result) in zip(keys, results) {
                switch result {
                case .success: state.removing[key] = nil
                case .failure(let fault):
                    faults.append(fault)
                    state.removals.append(key)
                }
            }
            if !faults.isEmpty, faults.count == keys.count {
                state.removalPause.begin(faults[0], at: MonotonicClock.nanoseconds)
            } else {
                state.removalPause.finish()
            }
        }
        tally.count { [faults] tally in
            tally.removed += UInt64(keys.count - faults.count)
            for fault in faults { tally.count(fault) }
        }
    }
}
