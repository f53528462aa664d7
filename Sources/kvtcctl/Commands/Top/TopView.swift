import KVTCProtocol

/// A picture of the daemon for a screen of some size. Reads nothing: the same report makes the same lines.
struct TopView {
    /// What sessions are sorted by.
    enum Order: String, CaseIterable {
        case idle, tokens, raw, drift, session

        var next: Order { Order.allCases[(Order.allCases.firstIndex(of: self)! + 1) % Order.allCases.count] }

        func sorted(_ sessions: [StatusReport.Session]) -> [StatusReport.Session] {
            // Equal ones in the order of their numbers, so that none jumps about.
            let sessions = sessions.sorted { $0.id < $1.id }
            return switch self {
            case .idle: sessions.sorted { Int($0.idleS) < Int($1.idleS) }
            case .tokens: sessions.sorted { $0.tokens > $1.tokens }
            case .raw: sessions.sorted { $0.rawPages > $1.rawPages }
            case .drift: sessions.sorted { $0.drift ?? 0 > $1.drift ?? 0 }
            case .session: sessions
            }
        }
    }

    var report: StatusReport
    var before: StatusReport?
    /// Why there is no newer report; nil where there is one.
    var absence: String?
    var order = Order.idle
    var isPaused = false

    func lines(columns: Int, rows: Int) -> [ScreenLine] {
        let figures = TopFigures(report, since: before)
        var lines = [headline, TopView.keys(order, isPaused)] + tiers(columns)
        lines += facts(figures).map(TopView.line)
        lines.append(TopView.line(""))
        lines += table(StatusView.latencies(report.latencyUs), columns)
        lines.append(TopView.line(""))
        let room = rows - lines.count
        // Where next to nothing of it is seen a table says nothing.
        guard room >= 2 else { return Array(lines.prefix(rows)) }
        guard !report.sessions.isEmpty else { return lines + [TopView.line("no sessions")] }
        let sessions = table(StatusView.sessionTable(order.sorted(report.sessions)), columns)
        guard sessions.count > room else { return lines + sessions }
        let left = sessions.count - (room - 1)
        return lines + sessions.prefix(room - 1) + [TopView.line("… \(Text.count(left, "more session"))")]
    }

    /// The picture before there is any report.
    static func waiting(_ reason: String) -> [ScreenLine] {
        [line("waiting for the daemon: \(reason)"), keys(nil, false)]
    }

    private static func line(_ text: String) -> ScreenLine { ScreenLine(text: Terminal.shown(text)) }

    private static func keys(_ order: Order?, _ isPaused: Bool) -> ScreenLine {
        guard let order else { return line("q quit") }
        return line("q quit   s sort by \(order.next.rawValue)   p \(isPaused ? "go on (paused)" : "pause")")
    }

    private var headline: ScreenLine {
        let state = absence.map { "gone: \($0)" } ?? "\(report.state)  up \(Text.duration(report.uptimeS))"
        return ScreenLine(text: Terminal.shown("kvtcd \(report.version)  \(state)"), isBold: true)
    }

    private func tiers(_ columns: Int) -> [ScreenLine] {
        let (ram, disk) = (report.tiers.ram, report.tiers.disk)
        let width = min(max(columns - 54, 8), 60)
        return [("RAM ", ram.used, ram.budget, ram.pages), ("disk", disk.used, disk.budget, disk.pages)].map {
            name, used, budget, pages in
            guard budget > 0 else { return TopView.line("\(name)  off") }
            let share = Double(used) / Double(budget)
            let percent = Text.decimal(100 * share, 0)
            let room = String(repeating: " ", count: max(0, 3 - percent.count))
            return TopView.line(
                "\(name)  \(Text.bar(share, width: width)) \(room)\(percent) %  \(Text.bytes(used)) of \(Text.bytes(budget)), \(Text.count(pages, "page"))"
            )
        }
    }

    private func facts(_ figures: TopFigures) -> [String] {
        func bytes(_ rate: Double?) -> String { rate.map { "\(Text.bytes(Int($0)))/s" } ?? "–" }
        func count(_ rate: Double?) -> String { rate.map { Text.decimal($0, $0 < 10 ? 1 : 0) } ?? "–" }
        func percent(_ share: Double?) -> String { share.map { "\(Text.decimal(100 * $0, 1)) %" } ?? "–" }
        let counters = report.counters
        let asked = counters.hits + counters.misses + counters.corruptPulls
        let whole = asked > 0 ? Double(counters.hits) / Double(asked) : nil
        let pages = report.pages
        let drifting =
            figures.drifting > 0 ? ", \(Text.count(figures.drifting, "session drifts", "sessions drift")) !" : ""
        return [
            "hits    \(percent(figures.hitRatio)) now, \(percent(whole)) since the start; \(count(figures.missesPerS)) misses/s",
            "push    \(bytes(figures.pushedBytesPerS)), \(count(figures.pushedPagesPerS)) pages/s; "
                + "pull \(bytes(figures.returnedBytesPerS)), \(count(figures.hitsPerS)) pages/s",
            "coding  \(count(figures.encodedPerS)) pages/s, \(Text.count(figures.toEncode)) to encode, "
                + "\(Text.count(figures.toDecode)) to decode, \(Text.count(figures.waiting, "page waits", "pages wait"))",
            "ratio   \(report.ratio.map { Text.decimal($0, 2) } ?? "–"); \(Text.count(pages.raw)) raw, "
                + "\(Text.count(pages.coded)) coded, \(Text.count(pages.diskOnly)) on disk only\(drifting)",
        ]
    }

    private func table(_ table: TextTable, _ columns: Int) -> [ScreenLine] {
        table.plainLines(in: columns).enumerated().map { ScreenLine(text: $1, isBold: $0 == 0) }
    }
}
