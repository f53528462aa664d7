import ArgumentParser
import Foundation
import KVTCModel
import KVTCPlan
import KVTCReplay
import KVTCSystem

/// What 'kvtcctl plan' predicts, against what a daemon does.
struct ReplayBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "A trace of requests against a real kvtcd, and what 'kvtcctl plan' says of the same.",
        discussion: """
            Starts the kvtcd beside it (or $KVTCD) and asks it for each request's blocks, pulls what is there and pushes the \
            rest, over the socket. The model is small: sizes are scaled down so that as many pages fit as with tokens of \
            --token-bytes. Above a ratio of 2 pages are quantised to four bits, 3.6 times, with sinks and window exact, or \
            with --lossless shrink losslessly.

              kvtc-bench replay trace.jsonl --ram 64 --ratio 16 --lossless
            """)

    @OptionGroup var options: Options

    @Argument(help: "The trace, as 'kvtcctl plan' reads it.")
    var trace: String

    @Option(help: "Bytes of a token in the cache that sizes are meant for.")
    var tokenBytes = 131_072

    @Option(help: "GiB of RAM.")
    var ram = 64.0

    @Option(help: "GiB of disk; 0 for none.")
    var disk = 0.0

    @Option(help: "1 raw, 4 quantised, or any with --lossless.")
    var ratio = 1.0

    @Flag(help: "Pages that shrink so many times losslessly.")
    var lossless = false

    @Option(help: "Of the trace, so many requests.")
    var requests: Int?

    /// Of the small model: 64 bytes a token.
    private static let headDim = 16

    func run() throws {
        var reader = TraceReader()
        for line in try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n").prefix(requests ?? .max) {
            try reader.read(Array(line.utf8))
        }
        let scale = Double(4 * Self.headDim) / Double(tokenBytes) * Double(1 << 30)
        let (ramBytes, diskBytes) = (Int(ram * scale), Int(disk * scale))
        let daemon = try DaemonProcess(ramBudget: ramBytes, diskBudget: diskBytes)
        let content: DaemonReplay.Content = ratio <= 1 ? .raw : lossless ? .lossless(ratio: ratio) : .quantised
        let replay = try DaemonReplay(daemon.client(), reader.trace, content, headDim: Self.headDim)
        let start = MonotonicClock.nanoseconds
        let found = try replay.run()
        // What pages shrink to is measured, unless quantised: it is the eviction that is predicted.
        let setup = replay.setup(ram: ramBytes, disk: diskBytes, found)
        let planner = Planner(trace: reader.trace, shape: PageShape(tokenBytes: replay.tokenBytes))
        let plan = try planner.plan([setup]).setups[0].result
        var report = Report()
        report.add("replay.seconds", Double(MonotonicClock.nanoseconds - start) / 1e9, "s")
        report.add("replay.requests", Double(reader.trace.requests.count), "")
        report.add("replay.hit_ratio", found.hitRatio, "of \(found.blocks) blocks, as kvtcd had them")
        report.add("replay.disk_hit_ratio", Double(found.diskHits) / Double(max(1, found.blocks)), "from disk")
        report.add("replay.ratio", found.ratio, "raw over stored bytes at the end")
        report.add("replay.rounding", found.rounding, "bytes of RAM over stored ones")
        report.add("replay.full", Double(found.full), "pages without room")
        report.add("plan.hit_ratio", plan.hitRatio, "as planned")
        report.add("plan.disk_hit_ratio", Double(plan.diskHits) / Double(max(1, plan.blocks)), "from disk")
        report.add("plan.ratio", plan.totalRatio, "raw over stored bytes of all that was put")
        report.add("plan.error", 100 * (plan.hitRatio - found.hitRatio), "points; aim: within 2")
        try options.finish(report)
    }
}
