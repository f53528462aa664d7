import KVTCShared
import KVTCStore
import KVTCSystem

/// How long a stop waits, in seconds: what is not done then is left undone.
package struct StopLimits: Sendable {
    /// Without any progress until it is given up; the service manager is asked for this and five more.
    package var patience = 55
    /// For answers owed, for connections to end, and for coders.
    package var (answers, ends, coding) = (10, 20, 60)
    /// For pages that other machines are to have.
    package var sharing = 20

    package init() {}
}

extension DaemonServer {
    /// What changes while a stop goes on.
    private struct Progress: Equatable {
        var connections: Int
        var coded: UInt64
        var unwritten: Int
        var bytesWritten: UInt64
    }

    /// Ends in order: no new connections or requests, answers owed are given, pages are coded, everything is made durable.
    /// The service manager is asked for more time for as long as that gets on. False when something could not be written, or
    /// nothing went on any more.
    @discardableResult
    public func stop(notifier: Notifier? = nil) -> Bool {
        log.info("stopping")
        notifier?.stopping(status: "stopping")
        notifier?.extendTimeout(seconds: stopLimits.patience + 5)
        let result = Monitor<Bool?>(nil)
        do throws(SystemError) {
            try Thread.start(name: "kvtc-stop", stackBytes: 4 << 20) { [self] in
                let isWritten = windDown()
                result.update { $0 = isWritten }
            }.detach()
        } catch { return windDown() }
        var (seen, since) = (progress(), MonotonicClock.nanoseconds)
        while true {
            let now = MonotonicClock.nanoseconds
            if let isWritten = result.wait(until: now + 1_000_000_000, { $0 }) { return isWritten }
            let current = progress()
            if current != seen {
                (seen, since) = (current, now)
                notifier?.extendTimeout(seconds: stopLimits.patience + 5)
            }
            let left =
                "\(current.connections) connections, \(engine.pendingEncodes) pages to code, \(current.unwritten) to write"
            notifier?.stopping(status: "stopping: \(left)")
            guard now - since > UInt64(stopLimits.patience) * 1_000_000_000 else { continue }
            log.error(
                "not everything was written: nothing went on any more",
                metadata: ["pages": "\(current.unwritten)", "seconds": "\((now - since) / 1_000_000_000)"])
            return false
        }
    }

    private func progress() -> Progress {
        let found = engine.store.statistics
        return Progress(
            connections: clients.withLock { $0.connections.count }, coded: engine.encodesDone.withLock { $0 },
            unwritten: engine.store.hasDisk ? found.dirtyPages : 0, bytesWritten: engine.store.bytesWritten)
    }

    private func windDown() -> Bool {
        func deadline(_ seconds: Int) -> UInt64 { MonotonicClock.nanoseconds + UInt64(seconds) * 1_000_000_000 }
        engine.refuseRequests()
        wakeUp.signal()
        _ = accepting.wait(until: deadline(stopLimits.answers)) { $0 == 0 ? true : nil }
        for door in doors { door.listener.removePath() }
        // Answers owed get a while; then connections end and with them their sessions.
        let answers = deadline(stopLimits.answers)
        for connection in clients.withLock({ Array($0.connections.values) }) { connection.awaitIdle(until: answers) }
        for connection in clients.withLock({ Array($0.connections.values) }) { connection.close() }
        _ = clients.wait(until: deadline(stopLimits.ends)) { $0.connections.isEmpty ? true : nil }
        // No connection is left for which pages are to be brought from the disk.
        _ = engine.readers.discard(.background)
        // RAM that is kept keeps pages as they are; the disk is for coded ones.
        if engine.store.hasDisk { engine.encodeWaiting(nil) }
        if engine.waitForEncodes(until: deadline(stopLimits.coding), { _ in true }) {
            if let fleet = engine.shared as? FleetTier {
                fleet.finish(until: deadline(stopLimits.sharing))
                fleet.close()
            }
            engine.readers.stop()
            engine.coders.stop()
            engine.pool.stop()
        } else {
            // They are written as they are, exact.
            let left = engine.coders.discard(.background)
            log.warning("stopping before all pages were coded", metadata: ["pages": "\(left)"])
        }
        return closeStore()
    }

    private func closeStore() -> Bool {
        var isWritten = true
        func attempt(_ body: () throws(StoreError) -> Void) {
            do throws(StoreError) {
                try body()
            } catch {
                let lost = engine.store.statistics.dirtyPages
                log.error(
                    "not everything was written", metadata: ["error": .stringConvertible(error), "pages": "\(lost)"])
                isWritten = false
            }
        }
        if engine.store.hasDisk {
            attempt { () throws(StoreError) in
                let written = try engine.store.flush(order: .mostWorthFirst)
                log.info("flushed", metadata: ["pages": "\(written.pages)", "bytes": "\(written.bytes)"])
            }
        }
        attempt { () throws(StoreError) in try engine.store.close() }
        if isWritten { log.info("stopped") }
        return isWritten
    }
}
