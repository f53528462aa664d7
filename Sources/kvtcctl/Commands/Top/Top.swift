import ArgumentParser
import CLinux
import Glibc
import KVTCClient
import KVTCCommandLine
import KVTCProtocol
import KVTCSystem

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch tiers, hits, rates, latencies and sessions live.",
        discussion: """
            Keys: q quits, s sorts sessions by something else, p pauses and goes on. Goes on while the daemon restarts. Where \
            standard input or output is no terminal, or TERM is dumb, a line of figures comes each time instead.

            EXAMPLES
              kvtcctl top
              kvtcctl top --interval 0.5
              kvtcctl top --json | jq .hit_ratio
            """)

    @OptionGroup var connection: ConnectionOptions

    @Option(
        parsing: .unconditional, help: ArgumentHelp("Seconds from one picture to the next.", valueName: "seconds"),
        transform: Parsed.seconds(0.1...3600))
    var interval = 1.0

    @Flag(help: "Print a line of JSON each time, with rates since the one before.")
    var json = false

    func run() throws {
        if !json, Terminal.canDraw {
            var screen = try TopScreen(connection: connection, interval: interval)
            try screen.run()
        } else {
            try stream()
        }
    }

    /// Figures line by line, also for programs.
    private func stream() throws {
        var before: StatusReport?
        var lines = 0
        while true {
            do {
                let report = try connection.withClient { try decodeStatus(try $0.call(StatusRequest()).json) }
                let figures = TopFigures(report, since: before)
                before = report
                if json {
                    print(try jsonLine(figures))
                } else {
                    if lines % 20 == 0 { print(TopCommand.titles) }
                    print(Terminal.shown(TopCommand.line(figures)))
                }
                lines += 1
                StandardOutput.flush()
            } catch let code as ExitCode where code != ExitCode(1) && lines > 0 {
                // It was there: it will be again.
            }
            usleep(UInt32(interval * 1_000_000))
        }
    }

    private static let titles = "  RAM  disk   hits      push      pull  coded/s  queue  waiting  sessions  state"

    private static func line(_ figures: TopFigures) -> String {
        func percent(_ part: Int, _ whole: Int) -> String {
            whole > 0 ? "\(Text.decimal(100 * Double(part) / Double(whole), 0))%" : "off"
        }
        func bytes(_ rate: Double?) -> String { rate.map { Text.bytes(Int($0)) } ?? "–" }
        let cells: [(String, Int)] = [
            (percent(figures.ramUsed, figures.ramBudget), 5), (percent(figures.diskUsed, figures.diskBudget), 6),
            (figures.hitRatio.map { "\(Text.decimal(100 * $0, 1))%" } ?? "–", 7), (bytes(figures.pushedBytesPerS), 10),
            (bytes(figures.returnedBytesPerS), 10), (figures.encodedPerS.map { Text.decimal($0, 1) } ?? "–", 9),
            ("\(figures.toEncode)", 7), ("\(figures.waiting)", 9), ("\(figures.sessions)", 10),
        ]
        let row = cells.map { text, width in String(repeating: " ", count: max(0, width - text.count)) + text }
        return row.joined() + "  " + figures.state
    }
}

/// The live view: one thread asks, the other draws and hears keys, so that a daemon that hangs holds no key up.
private struct TopScreen {
    private let signals: Int32
    private let news: Int32
    private let latest = Monitor<Result<StatusReport, ClientError>?>(nil)
    private var screen: Screen
    private var view: TopView?
    private var reason = "asking"
    private var order = TopView.Order.idle
    private var isPaused = false

    init(connection: ConnectionOptions, interval: Double) throws {
        // Before the first thread, which is to leave them alone, too.
        signals = clinux_terminal_signals()
        news = clinux_eventfd()
        guard signals >= 0, news >= 0 else { throw TerminalError(code: -min(signals, news)) }
        screen = try Screen()
        let (socket, timeout, latest, news) = (connection.socket, min(connection.timeout, 5), latest, news)
        try KVTCSystem.Thread.start(name: "kvtcctl-ask") {
            while true {
                let result = Result { () throws(ClientError) in
                    try Client(socketPath: socket, name: "kvtcctl top", timeoutSeconds: timeout).call(StatusRequest())
                }.flatMap { reply in
                    Result { try reply.decoded() as StatusReport }.mapError { .violation("\($0)") }
                }
                latest.update { $0 = result }
                var one: UInt64 = 1
                _ = write(news, &one, 8)
                usleep(UInt32(interval * 1_000_000))
            }
        }.detach()
    }

    mutating func run() throws {
        while true {
            draw()
            var sources = [STDIN_FILENO, signals, news].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            guard poll(&sources, nfds_t(sources.count), -1) > 0 else { continue }
            if sources[0].revents != 0, !hear() { return }
            if sources[1].revents != 0 { try obey() }
            if sources[2].revents != 0 { take() }
        }
    }

    private mutating func draw() {
        if let view {
            screen.draw(view.lines(columns: screen.columns, rows: screen.rows))
        } else {
            screen.draw(TopView.waiting(reason))
        }
    }

    /// Takes the keys that were pressed; false when that is the end.
    private mutating func hear() -> Bool {
        var keys = [UInt8](repeating: 0, count: 64)
        let count = read(STDIN_FILENO, &keys, keys.count)
        guard count > 0 else { return false }
        for key in keys[..<count] {
            switch key {
            case UInt8(ascii: "q"), UInt8(ascii: "Q"): return false
            case UInt8(ascii: "s"): order = order.next
            case UInt8(ascii: "p"), UInt8(ascii: " "): isPaused.toggle()
            default: break
            }
        }
        view?.order = order
        view?.isPaused = isPaused
        return true
    }

    private mutating func obey() throws {
        switch clinux_next_signal(signals) {
        case SIGWINCH: screen.measure()
        case SIGTSTP: screen.suspend()
        case SIGCONT: screen.resume()
        case let number where number > 0:
            clinux_terminal_leave()
            // What a shell expects of who ended by a signal.
            throw ExitCode(128 + number)
        default: break
        }
    }

    private mutating func take() {
        var count: UInt64 = 0
        _ = read(news, &count, 8)
        guard let result = latest.withLock({ $0 }) else { return }
        switch result {
        case .success(let report):
            guard !isPaused || view == nil else { return }
            let before = view?.report
            view = TopView(report: report, before: before, order: order, isPaused: isPaused)
        case .failure(let error):
            reason = "\(error)".split(separator: "\n").first.map(String.init) ?? ""
            view?.absence = reason
        }
    }
}
