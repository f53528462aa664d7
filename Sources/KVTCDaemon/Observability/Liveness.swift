import KVTCSystem
import Logging

/// Whether the daemon lives: whether requests could be served, lines of the log are taken, and the disk answers.
///
/// A thread of its own goes the way that requests go. Who asks takes no lock that they take, and so always gets an answer.
/// Slowness is no hang: whatever gets on, if only a job of another client or another call to the disk, is a sign of life.
final class Liveness: Sendable {
    /// A moment at which requests could be served, and what there was.
    private struct Proof: Sendable {
        var time: UInt64
        var summary: String
    }

    private let server: DaemonServer
    private let writer: LogWriter
    /// Nanoseconds that the service manager waits for a sign of life.
    private let patience: UInt64
    private let proof: Monitor<Proof>

    /// - Parameter writer: the log that has to get on.
    init(of server: DaemonServer, writer: LogWriter, patience: UInt64) {
        self.server = server
        self.writer = writer
        self.patience = patience
        proof = Monitor(Proof(time: MonotonicClock.nanoseconds, summary: server.summary()))
    }

    /// What there was when requests could be served last.
    var summary: String { proof.withLock { $0.summary } }

    /// Goes the way that requests go: every lock that one for a page in RAM takes, a job on the threads that compute, room in
    /// RAM; and has the log show that it takes something.
    func prove() {
        writer.probe()
        let found = server.summary()
        let store = server.engine.store
        // The first page is to bring the first memory, not this.
        if store.ramUsed > 0 { _ = store.hasRoom(512, for: 0) }
        awaitJob(on: server.engine.pool)
        proof.update { $0 = Proof(time: MonotonicClock.nanoseconds, summary: found) }
    }

    /// Jobs of clients that wait may be many: each that is taken is a sign of life.
    private func awaitJob(on pool: WorkPool) {
        let isDone = Monitor(false)
        pool.submit(.urgent) { isDone.update { $0 = true } }
        var taken = pool.taken
        while isDone.wait(until: MonotonicClock.nanoseconds + patience / 8, { $0 ? true : nil }) == nil {
            let now = pool.taken
            if now != taken { proof.update { $0.time = MonotonicClock.nanoseconds } }
            taken = now
        }
    }

    /// What hangs, and for how many nanoseconds; nil while all of it lives.
    func hang(now: UInt64) -> (what: String, nanoseconds: UInt64)? {
        func age(_ time: UInt64) -> UInt64 { now - min(now, time) }
        let served = age(proof.withLock { $0.time })
        if served > patience / 2 { return ("no request could be served", served) }
        if let since = writer.stuckSince, age(since) > patience / 2 { return ("the log takes no line", age(since)) }
        // Others may keep a disk busy for long, and RAM serves meanwhile.
        if let since = server.engine.store.diskSilentSince, age(since) > 2 * patience {
            return ("the disk does not answer", age(since))
        }
        return nil
    }
}
