import Glibc
import KVTCProtocol
import KVTCSystem
import Synchronization

/// Many workers at once: the sum of what they pull must not fall with their number.
struct ConnectionBenchmark {
    let daemon: DaemonProcess
    let quick: Bool

    /// Pages together: more than caches hold, however many connections share them.
    private static let pages = 480
    private static let batch = 8

    func run(_ report: inout Report) throws {
        let owner = try BenchmarkSession(daemon)
        let keys = BenchmarkSession.keys(100_000..<100_000 + Self.pages)
        for begin in stride(from: 0, to: Self.pages, by: BenchmarkSession.pages) {
            try owner.push(Array(keys[begin..<begin + BenchmarkSession.pages]), from: begin)
        }
        defer { try? owner.drop(keys) }
        let counts = [1, 4, 16, 64]
        var rates: [Int: [Double]] = [:]
        for _ in 0..<(quick ? 1 : 5) {
            for connections in counts { rates[connections, default: []].append(try rate(connections, keys, owner)) }
        }
        for connections in counts {
            report.add("connections.pull_\(connections)", quantile(rates[connections]!, 0.5), "GB/s together")
        }
        report.add(
            ratio: "pull_64_connections_vs_1", quantile(rates[64]!, 0.5) / quantile(rates[1]!, 0.5),
            target: "no collapse")
    }

    /// GB/s of all connections together, each pulling its share of the pages twice, eight a request. The
    /// owner's connection is one of them, as 64 are what one user may have.
    private func rate(_ connections: Int, _ keys: [PageKey], _ owner: BenchmarkSession) throws -> Double {
        let others = try (1..<connections).map { _ in try BenchmarkSession(daemon, arenaPages: Self.batch) }
        let sessions = [owner] + others
        // Fresh arenas get their memory with the first pull, which is not what is measured here.
        for session in sessions { try session.pull(Array(keys.prefix(Self.batch))) }
        let failures = Failures()
        let start = MonotonicClock.nanoseconds
        let threads = try sessions.enumerated().map { index, session in
            let share = Array(
                keys[index * keys.count / connections..<(index + 1) * keys.count / connections])
            return try KVTCSystem.Thread.start(name: "puller") {
                for begin in stride(from: 0, to: 2 * share.count, by: Self.batch) {
                    let first = begin % share.count
                    let pages = Array(share[first..<min(first + Self.batch, share.count)])
                    if (try? session.pull(pages)) == nil { failures.count.add(1, ordering: .relaxed) }
                }
            }
        }
        for thread in threads { thread.join() }
        let time = Double(MonotonicClock.nanoseconds - start) / 1e9
        guard failures.count.load(ordering: .relaxed) == 0 else { throw Mismatch("pulls failed") }
        return Double(2 * keys.count * sessions[0].pageBytes) / time / 1e9
    }

    private final class Failures: Sendable { let count = Atomic(0) }
}
