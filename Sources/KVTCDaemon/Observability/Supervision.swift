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
    /// Serves until a signal asks for the end, then ``stop(notifier:)``s.
    ///
    /// The service manager hears that the daemon lives only while that shows, see ``Liveness``. This thread takes no lock that
    /// requests take, and waits for no disk, log or manager, so that a signal always is heard.
    public func run(
        until signals: Signals, notifier: Notifier, writer: LogWriter = .standardError,
        reading: @escaping ConfigurationReading
    ) throws -> Bool {
        let patience = max(3000, notifier.watchdogMicroseconds ?? 30_000_000) * 1000
        // Three signs of life in the time that the service manager allows for one.
        let interval = min(10_000_000_000, patience / 3)
        let liveness = Liveness(of: self, writer: writer, patience: patience)
        let proving = try Repetition(name: "kvtc-alive", every: interval / 2) { liveness.prove() }
        let upkeep = try Repetition(name: "kvtc-upkeep", every: interval) { [self] in maintain() }
        let probing = try Repetition(name: "kvtc-probe", every: patience) { [self] in engine.proveDisk() }
        defer { for repetition in [proving, upkeep, probing] { repetition.end() } }
        let isReady = Monitor(notifier.ready(status: liveness.summary))
        var next = MonotonicClock.nanoseconds + interval
        var hung: String?
        while true {
            let wish = signals.wait(until: next)
            if wish == .stop { return stop(notifier: notifier) }
            if wish == .reload {
                notifier.reloading()
                reload(reading) {
                    let isHeard = notifier.ready(status: liveness.summary)
                    isReady.update { $0 = isHeard }
                }
            }
            let now = MonotonicClock.nanoseconds
            guard now >= next else { continue }
            next = now + interval
            let hang = liveness.hang(now: now)
            if let hang, hang.what != hung { report(hang.what) }
            hung = hang?.what
            guard let hang else {
                if !isReady.withLock({ $0 }) {
                    let isHeard = notifier.ready(status: liveness.summary)
                    isReady.update { $0 = isHeard }
                }
                notifier.status(liveness.summary)
                notifier.watchdog()
                continue
            }
            notifier.status("\(hang.what) for \(hang.nanoseconds / 1_000_000_000) s")
        }
    }

    /// Tells of a hang, elsewhere: the log may be what hangs.
    private func report(_ what: String) {
        _ = try? Thread.start(name: "kvtc-report") { [self] in
            log.critical("the daemon hangs", metadata: ["reason": "\(what)"])
        }.detach()
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
}
