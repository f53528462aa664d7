import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCSystem

/// One session of a million tokens, pushed, looked up and pulled through the daemon: its last pages must not cost more than
/// its first ones. The model is tiny, so that what is measured is the keeping of books.
struct LongSessionBenchmark {
    let daemon: DaemonProcess
    let quick: Bool

    private static let pageTokens = 64
    private static let batch = 125

    func run(_ report: inout Report) throws {
        let pages = (quick ? 125_000 : 1_000_000) / Self.pageTokens
        let client = try daemon.client()
        let tensors = [Role.key, .value].map { TensorGeometry(layer: 0, role: $0, heads: 1, headDim: 16) }
        let session = try ClientSession(
            client,
            OpenSessionRequest(
                name: "long", tensors: tensors,
                layout: PageLayout(element: .f16, order: .tensorTokenHead), pageTokens: UInt32(Self.pageTokens),
                policy: Policy(sink: 4, window: 128, mode: .lossless, code: .atOnce)))
        let pageBytes = session.tokenBytes * Self.pageTokens
        let arena = try client.makeArena(bytes: pageBytes * Self.batch)
        try noisePage(bytes: pageBytes * Self.batch, seed: 11).withUnsafeBytes {
            guard arena.memory.write($0, offset: 0) else { throw Mismatch("the pages do not fit in their arena") }
        }
        let keys = BenchmarkSession.keys(200_000..<200_000 + pages)
        let batches = stride(from: 0, to: pages, by: Self.batch).map { $0..<min($0 + Self.batch, pages) }

        let pushes = try batches.map { range in
            let entries = range.enumerated().map { index, page in
                PushEntry(
                    key: keys[page], firstPosition: UInt32(page * Self.pageTokens), tokens: UInt32(Self.pageTokens),
                    offset: UInt64(index * pageBytes), length: UInt64(pageBytes))
            }
            return try seconds {
                let request = PushRequest(session: session.number, arena: arena.number, entries: entries)
                guard try client.call(request).outcomes.allSatisfy({ $0 == .stored }) else {
                    throw Mismatch("a page of a long session was not stored")
                }
            }
        }
        let lookup = try seconds {
            let reply = try client.call(LookupRequest(session: session.number, keys: keys))
            guard reply.leadingRun == pages else { throw Mismatch("\(reply.leadingRun) of \(pages) pages were found") }
        }
        let pulls = try batches.map { range in
            let entries = range.enumerated().map { index, page in
                PullEntry(key: keys[page], offset: UInt64(index * pageBytes), capacity: UInt64(pageBytes))
            }
            return try seconds {
                let request = PullRequest(session: session.number, arena: arena.number, entries: entries)
                guard try client.pull(request, { _ in }).hits == range.count else {
                    throw Mismatch("a page of a long session did not come back")
                }
            }
        }
        _ = try client.call(DropRequest(session: session.number, keys: keys))

        let tokens = pages * Self.pageTokens
        func median(_ times: some Sequence<Double>) -> Double {
            quantile(Array(times), 0.5) / Double(Self.batch) * 1e6
        }
        let share = batches.count / 5
        report.add(
            "long_session.push_first", median(pushes.prefix(share)), "µs a page, the first fifth of \(tokens) tokens")
        report.add("long_session.push_last", median(pushes.suffix(share)), "µs a page, the last fifth")
        report.add("long_session.lookup", lookup / Double(pages) * 1e9, "ns a key, all in one request")
        report.add("long_session.pull_first", median(pulls.prefix(share)), "µs a page")
        report.add("long_session.pull_last", median(pulls.suffix(share)), "µs a page")
        report.add(
            ratio: "long_session_push", median(pushes.suffix(share)) / median(pushes.prefix(share)), target: "flat")
    }
}
