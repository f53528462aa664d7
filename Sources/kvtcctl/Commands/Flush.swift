import ArgumentParser
import Glibc
import KVTCClient
import KVTCCommandLine
import KVTCProtocol
import KVTCSystem

struct FlushCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Make pages durable.",
        discussion: """
            Encodes what waits, writes it to disk and syncs. When the command returns, everything that was acknowledged \
            before it started survives a power loss. It waits as long as the daemon gets on with it, and gives up when \
            nothing has come of it for --timeout seconds; the daemon goes on all the same. A daemon without a disk tier has \
            nothing to write to: exit status 1.

            EXAMPLES
              kvtcctl flush
              kvtcctl flush --session 3
            """)

    @OptionGroup var connection: ConnectionOptions

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Only the pages of this session.", valueName: "id"),
        transform: Parsed.session)
    var session: UInt32?

    @Flag(help: "Print {\"pages\", \"bytes\"}.")
    var json = false

    func run() throws {
        let reply = try connection.withClient(explaining: explain) { try connection.flush(session, $0) }
        if json {
            print(try jsonLine(["pages": reply.pages, "bytes": reply.bytes]))
        } else {
            print("flushed \(Text.count(reply.pages, "page")), \(Text.bytes(reply.bytes)) written")
        }
    }

    private func explain(_ error: ClientError) -> String? {
        guard case .refused(let reason) = error, reason.code == .ioError else { return nil }
        return reason.message
    }

}

extension ConnectionOptions {
    /// Longer than any flush takes: whether to go on waiting is decided by what it gets done.
    private static let patience = 30 * 86400

    /// Flushes on a connection of its own while this one is asked how far that is.
    func flush(_ session: UInt32?, _ client: Client) throws -> FlushReply {
        let worker = try Client(
            socketPath: socket, name: "kvtcctl flush", timeoutSeconds: ConnectionOptions.patience)
        let request = FlushRequest(session: session ?? Wire.none)
        let outcome = Monitor<Result<FlushReply, ClientError>?>(nil)
        try KVTCSystem.Thread.start(name: "kvtcctl-flush") {
            let result = Result { () throws(ClientError) in try worker.call(request) }
            outcome.update { $0 = result }
        }.detach()
        var progress = FlushProgress()
        var lastChange = MonotonicClock.nanoseconds
        while true {
            let next = MonotonicClock.nanoseconds + 1_000_000_000
            if let result = outcome.wait(until: next, { $0 }) {
                progress.finish()
                return try result.get()
            }
            let point = try client.call(StatusRequest()).decoded(as: FlushPoint.self)
            let now = MonotonicClock.nanoseconds
            if progress.show(point) { lastChange = now }
            guard now - lastChange < UInt64(timeout) * 1_000_000_000 else {
                progress.finish()
                throw ClientError.timedOut(.flush, seconds: timeout)
            }
        }
    }
}

/// The part of STATUS that changes while a flush goes on: daemons of other versions have it, too.
private struct FlushPoint: Decodable, Equatable {
    struct Queues: Decodable, Equatable { var encode: Int }
    struct Disk: Decodable, Equatable { var pages, used: Int }
    struct Tiers: Decodable, Equatable { var disk: Disk }
    struct Counters: Decodable, Equatable { var encoded: UInt64 }
    struct Bytes: Decodable, Equatable { var written: UInt64? }
    var queues: Queues
    var tiers: Tiers
    var counters: Counters
    var bytes: Bytes
}

/// What a flush has done so far, as STATUS shows it, on a line of standard error.
private struct FlushProgress {
    private var first, last: FlushPoint?

    /// Whether anything has happened since the last time.
    mutating func show(_ point: FlushPoint) -> Bool {
        defer { last = point }
        let start = first ?? point
        first = start
        guard point != last else { return false }
        let (pages, before) = (point.tiers.disk.pages, start.tiers.disk.pages)
        let written = Text.count(pages - min(before, pages), "page")
        write("flushing: \(Text.count(point.queues.encode)) to encode, \(written) written")
        return true
    }

    func finish() { if Terminal.canRedraw, last != nil { write("") } }

    private func write(_ text: String) {
        guard Terminal.canRedraw else { return }
        standardError("\r\u{1B}[K\(text)")
    }
}
