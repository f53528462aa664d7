import Glibc
import KVTCModel
import KVTCProtocol
import KVTCSystem
import Synchronization

/// Round trips: LOOKUP of 64 keys against PING, alone and beside a full load of pulls and encodes.
struct RequestBenchmark {
    let daemon: DaemonProcess
    let quick: Bool

    func run(_ report: inout Report) throws {
        let session = try BenchmarkSession(daemon)
        let present = BenchmarkSession.keys(50_000..<50_000 + BenchmarkSession.pages)
        try noisePage(bytes: session.contextBytes, seed: 8).withUnsafeBytes { try session.fill(from: $0) }
        try session.push(present)
        // Half of the keys are there.
        let keys = present + BenchmarkSession.keys(60_000..<60_032)
        let lookup = LookupRequest(session: session.session.number, keys: keys)
        let ping = PingRequest(payload: [1])
        let client = session.client
        let (rounds, loaded) = quick ? (2000, 1000) : (10_000, 10_000)

        let alone = try interleaved(
            rounds: rounds,
            [
                Side("ping") { _ = try client.call(ping) },
                Side("lookup64") { _ = try client.call(lookup) },
            ])
        report.add("request.ping_p50", alone["ping"]! * 1e6, "µs")
        report.add("request.lookup64_p50", alone["lookup64"]! * 1e6, "µs")
        report.add(ratio: "lookup64_vs_roundtrip", alone["lookup64"]! / alone["ping"]!, target: "≤ 3")

        let load = try Load(daemon)
        var times: [Double] = []
        for _ in 0..<loaded { times.append(try seconds { _ = try client.call(lookup) }) }
        let (pulled, encoded) = try load.stop()
        report.add("request.lookup64_loaded_p50", quantile(times, 0.5) * 1e6, "µs beside pulls and encodes")
        report.add("request.lookup64_loaded_p99.9", quantile(times, 0.999) * 1e6, "µs, aim ≤ 20000")
        report.add("request.load_pulled", Double(pulled) / times.reduce(0, +) / 1e9, "GB/s meanwhile")
        report.add(
            "request.load_pushed", Double(encoded) / times.reduce(0, +) / 1e6, "MB/s pushed to be coded meanwhile")
        try session.drop(present)
    }
}

/// Two clients that never pause: one pulls a raw context, one pushes pages that are coded at once.
private final class Load {
    private final class Counts: Sendable {
        let isOver = Atomic(false)
        let pulled = Atomic(0)
        let pushed = Atomic(0)
    }

    private let counts = Counts()
    private let threads: [KVTCSystem.Thread]

    init(_ daemon: DaemonProcess) throws {
        let puller = try BenchmarkSession(daemon)
        let pusher = try BenchmarkSession(daemon, policy: Policy(sink: 0, window: 0, mode: .lossless, code: .atOnce))
        let bytes = noisePage(bytes: puller.contextBytes, seed: 9)
        try bytes.withUnsafeBytes {
            try puller.fill(from: $0)
            try pusher.fill(from: $0)
        }
        let keys = BenchmarkSession.keys(70_000..<70_000 + BenchmarkSession.pages)
        try puller.push(keys)
        let counts = counts
        threads = [
            try .start(name: "load-pull") {
                while !counts.isOver.load(ordering: .relaxed) {
                    guard (try? puller.pull(keys)) != nil else { return }
                    counts.pulled.add(puller.contextBytes, ordering: .relaxed)
                }
                try? puller.drop(keys)
            },
            try .start(name: "load-push") {
                while !counts.isOver.load(ordering: .relaxed) {
                    let keys = BenchmarkSession.keys(80_000..<80_000 + BenchmarkSession.pages)
                    guard (try? pusher.push(keys)) != nil else { return }
                    counts.pushed.add(pusher.contextBytes, ordering: .relaxed)
                    // Coded, then gone, so that the load neither fills the store nor runs ahead of the coder.
                    _ = try? pusher.client.call(FlushRequest(session: pusher.session.number))
                    try? pusher.drop(keys)
                }
            },
        ]
    }

    /// Bytes that were pulled and that were pushed.
    func stop() throws -> (pulled: Int, pushed: Int) {
        counts.isOver.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        let (pulled, pushed) = (counts.pulled.load(ordering: .relaxed), counts.pushed.load(ordering: .relaxed))
        guard pulled > 0, pushed > 0 else { throw Mismatch("the load did not run") }
        return (pulled, pushed)
    }
}
