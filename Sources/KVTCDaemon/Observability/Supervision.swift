import KVTCSystem

/// A thread that does something again and again until it is told to end.
final class Repetition: Sendable {
    private let isOver = Monitor(false)

    /// Does it every so many nanoseconds, the first time after as many.
    init(name: String, every interval: UInt64, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let isOver = isOver
        try Thread.start(name: name) {
            while isOver.wait(until: MonotonicClock.nanoseconds + interval, { $0 ? true : nil }) == nil { body() }
        }.detach()
    }

    /// From now on it is not begun again. Waits for nothing.
    func end() { isOver.update { $0 = true } }
}

extension DaemonServer {
    /// A moment at which requests could be served, and what there was.
    private struct Proof: Sendable {
        var time: UInt64
        var summary: String
    }

    /// Serves until a signal asks for the end, then ``stop(notifier:)``s.
    ///
    /// The service manager hears that the daemon lives only while another thread can show that requests could be served. This
    /// one takes no lock that they take, and waits for no disk, log or manager, so that a signal always is heard.
    public func run(until signals: Signals, notifier: Notifier) throws -> Bool {
        // Three signs of life in the time that the service manager allows for one.
        let interval = max(1000, min(10_000_000, (notifier.watchdogMicroseconds ?? 30_000_000) / 3)) * 1000
        let proof = Monitor(Proof(time: MonotonicClock.nanoseconds, summary: summary()))
        let proving = try Repetition(name: "kvtc-alive", every: interval / 2) { [self] in
            let found = summary()
            proof.update { $0 = Proof(time: MonotonicClock.nanoseconds, summary: found) }
        }
        let upkeep = try Repetition(name: "kvtc-upkeep", every: interval) { [self] in maintain() }
        defer {
            proving.end()
            upkeep.end()
        }
        var isReady = notifier.ready(status: proof.withLock { $0.summary })
        var next = MonotonicClock.nanoseconds + interval
        while true {
            let wish = signals.wait(until: next)
            if wish == .stop { return stop(notifier: notifier) }
            if wish == .reload { reload() }
            let now = MonotonicClock.nanoseconds
            guard now >= next else { continue }
            next = now + interval
            let last = proof.withLock { $0 }
            if !isReady { isReady = notifier.ready(status: last.summary) }
            let age = now - min(now, last.time)
            if age <= interval + interval / 2 {
                notifier.status(last.summary)
                notifier.watchdog()
            } else {
                notifier.status("no request could be served for \(age / 1_000_000_000) s")
            }
        }
    }

    /// What the daemon is doing, in a line for the service manager. Taking every lock that a request for a page in RAM takes, it
    /// also shows that none is stuck.
    public func summary() -> String {
        let statistics = engine.store.statistics
        let sessions = engine.ledger.withLock { $0.sessions.count }
        _ = (engine.leases.withLock { $0.count }, engine.metrics.part(of: 0), LogWriter.standardError.droppedLines)
        let connections = clients.withLock { $0.connections.count }
        return "\(statistics.pages) pages, \(sessions) sessions, \(connections) connections"
    }

    /// Work that no request asks for: gives back the room of pages whose time is over, has the windows of idle sessions and what
    /// waits for a quiet time coded, and tries a disk that failed again.
    public func maintain() {
        _ = engine.store.purgeExpired()
        engine.restIdleSessions(now: MonotonicClock.nanoseconds)
        engine.forgetGoneWaiting()
        engine.codeWhileIdle()
        engine.lookAfterDisk()
        engine.lookAfterMemory()
    }

    /// Reads the profile directory anew, beside everything else.
    func reload() {
        guard !isReloading.exchange(true, ordering: .acquiringAndReleasing) else { return }
        log.info("reading the profile directory anew")
        engine.readers.submit(.background) { [self] in
            engine.profiles.scan(log: log)
            isReloading.store(false, ordering: .releasing)
        }
    }
}
