import ArgumentParser
import Glibc
import KVTCClient
import KVTCModel
import KVTCProtocol

struct SocketBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "socket",
        abstract: "A real kvtcd against memcpy, a raw Unix-socket transfer, and Redis with the same page bytes.",
        discussion: """
            Starts the kvtcd beside it (or $KVTCD) and, where one is installed, a redis-server, both on sockets of \
            their own. A context is 32 raw pages of 64 tokens in the shape of SmolLM2-135M: 47 MB.
            """)

    @OptionGroup var options: Options

    func run() throws {
        var report = Report()
        let daemon = try DaemonProcess(ramBudget: 1 << 30)
        try TransferBenchmark(daemon, quick: options.quick).run(&report)
        try RequestBenchmark(daemon: daemon, quick: options.quick).run(&report)
        try ConnectionBenchmark(daemon: daemon, quick: options.quick).run(&report)
        try LongSessionBenchmark(daemon: daemon, quick: options.quick).run(&report)
        try options.finish(report)
    }
}

/// A session whose pages stay raw, with one context's worth of arena.
struct BenchmarkSession {
    static let pages = 32
    static let pageTokens = 64

    let client: Client
    let session: ClientSession
    let arena: ClientArena
    var pageBytes: Int { session.tokenBytes * Self.pageTokens }
    var contextBytes: Int { pageBytes * Self.pages }

    init(
        _ daemon: DaemonProcess, order: PageLayout.Order = .tensorTokenHead, policy: Policy? = nil,
        arenaPages: Int = BenchmarkSession.pages
    ) throws {
        client = try daemon.client()
        session = try ClientSession(
            client,
            OpenSessionRequest(
                name: "bench", tensors: Shapes.smolLM2,
                layout: PageLayout(element: .f16, order: order), pageTokens: UInt32(Self.pageTokens),
                // Nothing leaves a window that large, so nothing is coded.
                policy: policy ?? Policy(window: 1 << 20, mode: .lossless)))
        arena = try client.makeArena(bytes: session.tokenBytes * Self.pageTokens * arenaPages)
    }

    /// Fills the arena with pages.
    func fill(from source: UnsafeRawBufferPointer) throws {
        guard arena.memory.write(source, offset: 0) else { throw Mismatch("the context does not fit in its arena") }
    }

    /// - Parameter page: where in the stream the first one is.
    func pushEntries(_ keys: [PageKey], from page: Int = 0) -> [PushEntry] {
        keys.enumerated().map { index, key in
            PushEntry(
                key: key, firstPosition: UInt32((page + index) * Self.pageTokens), tokens: UInt32(Self.pageTokens),
                offset: UInt64(index * pageBytes), length: UInt64(pageBytes))
        }
    }

    /// Pushes what lies in the arena.
    func push(_ keys: [PageKey], from page: Int = 0) throws {
        let request = PushRequest(
            session: session.number, arena: arena.number, entries: pushEntries(keys, from: page))
        try expectStored(try client.call(request).outcomes)
    }

    /// Pushes pages inline, four a request and two requests at a time, as ``ClientSession`` does.
    func pushInline(_ keys: [PageKey], _ bytes: ArraySlice<UInt8>) throws {
        let entries = pushEntries(keys)
        var pending: [Pending<PushRequest>] = []
        for begin in stride(from: 0, to: keys.count, by: 4) {
            if pending.count == 2 { try expectStored(try client.receive(pending.removeFirst()).outcomes) }
            let range = begin..<min(begin + 4, keys.count)
            let part = entries[range].map { entry in
                var entry = entry
                entry.offset -= UInt64(begin * pageBytes)
                return entry
            }
            let inline = bytes[bytes.startIndex + begin * pageBytes..<bytes.startIndex + range.upperBound * pageBytes]
            let request = PushRequest(session: session.number, arena: Wire.none, entries: part, inline: inline)
            pending.append(try client.send(request))
        }
        for request in pending { try expectStored(try client.receive(request).outcomes) }
    }

    private func expectStored(_ outcomes: [PushOutcome]) throws {
        guard outcomes.allSatisfy({ $0 == .stored }) else { throw Mismatch("a page was not stored: \(outcomes)") }
    }

    func drop(_ keys: [PageKey]) throws { _ = try client.call(DropRequest(session: session.number, keys: keys)) }

    /// Pulls pages into the arena, or inline.
    func pull(_ keys: [PageKey], inline: Bool = false, _ part: (PullPart) -> Void = { _ in }) throws {
        let entries = keys.enumerated().map {
            PullEntry(key: $0.element, offset: UInt64($0.offset * pageBytes), capacity: UInt64(pageBytes))
        }
        let request = PullRequest(
            session: session.number, arena: inline ? Wire.none : arena.number, entries: entries)
        let reply = try client.pull(request, part)
        guard reply.hits == keys.count else { throw Mismatch("\(reply.hits) of \(keys.count) pages came back") }
    }

    /// Whether the arena holds these bytes.
    func holds(_ bytes: UnsafeRawBufferPointer) -> Bool {
        arena.memory.withWritable(offset: 0, length: UInt64(bytes.count)) {
            memcmp($0.baseAddress!, bytes.baseAddress!, bytes.count) == 0
        } == true
    }

    static func keys(_ range: Range<Int>) -> [PageKey] {
        range.map { number in PageKey((0..<32).map { UInt8(truncatingIfNeeded: number >> ($0 % 8 * 8)) })! }
    }
}

/// A side that did not do what it was measured for.
struct Mismatch: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
