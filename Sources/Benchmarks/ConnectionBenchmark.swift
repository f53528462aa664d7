import Glibc
import KVTCProtocol
import KVTCSystem
import Synchronization

/// Many workers at once: the sum of what they pull must not fall with their number.
struct ConnectionBenchmark {
    let daemon: DaemonProcess
    let quick: Bool

    func run(_ report: inout Report) throws {
        var rates: [Int: [Double]] = [:]
        let counts = [1, 4, 16, 60]
        for _ in 0..<(quick ? 1 : 3) {
            for connections in counts { rates[connections, default: []].append(try rate(connections)) }
        }
        for connections in counts {
            report.add("connections.pull_\(connections)", quantile(rates[connections]!, 0.5), "GB/s together")
        }
        report.add(
            ratio: "pull_60_connections_vs_1", quantile(rates[60]!, 0.5) / quantile(rates[1]!, 0.5),
            target: "no collapse")
    }

    /// GB/s of all connections together, each pulling eight pages of its own again and again.
    private func rate(_ connections: Int) throws -> Double {
        let sessions = try (0..<connections).map { index in
            let session = try BenchmarkSession(daemon)
            let keys = BenchmarkSession.keys(100_000 + 1000 * index..<100_008 + 1000 * index)
            try session.push(keys)
            return (session: session, keys: keys)
        }
        defer { for (session, keys) in sessions { try? session.drop(keys) } }
        let repeats = max(2, (quick ? 60 : 240) / connections)
        let start = MonotonicClock.nanoseconds
        let failures = Failures()
        let threads = try sessions.map { session, keys in
            try KVTCSystem.Thread.start(name: "puller") {
                for _ in 0..<repeats where (try? session.pull(keys)) == nil {
                    failures.count.add(1, ordering: .relaxed)
                }
            }
        }
        for thread in threads { thread.join() }
        let time = Double(MonotonicClock.nanoseconds - start) / 1e9
        guard failures.count.load(ordering: .relaxed) == 0 else { throw Mismatch("pulls failed") }
        return Double(connections * repeats * 8 * sessions[0].session.pageBytes) / time / 1e9
    }

    private final class Failures: Sendable { let count = Atomic(0) }
}
