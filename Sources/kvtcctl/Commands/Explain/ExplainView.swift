import KVTCProtocol

/// What EXPLAIN says, for people.
struct ExplainView {
    private let report: ExplainReport

    init(_ report: ExplainReport) { self.report = report }

    var text: String {
        guard let session = report.session else {
            return report.pages.map { details($0).joined(separator: "\n") }.joined(separator: "\n\n")
        }
        let name = session.name.isEmpty ? "" : " \(session.name.escapedForDisplay)"
        var lines = Terminal.wrapped(
            Terminal.shown(
                "session \(session.id)\(name): \(session.mode), sink \(session.sink), window \(session.window), coded \(session.code), "
                    + "\(Text.count(session.tokens, "token")) in \(Text.count(session.pages, "page"))"))
        if report.pages.isEmpty { return (lines + ["", "no pages"]).joined(separator: "\n") }
        lines += [""] + table
        let reasons = Set(report.pages.flatMap(\.reasons)).sorted { $0.rawValue < $1.rawValue }
        lines.append("")
        lines += reasons.flatMap {
            Terminal.wrapped(Terminal.shown("\($0.rawValue): \(ExplainView.meaning($0))"), indent: 2)
        }
        lines += Terminal.wrapped(
            Terminal.shown(
                "BEFORE: what of this user's pages leaves RAM first; of one that is only on disk, how many files are older."
            ),
            indent: 2)
        return lines.joined(separator: "\n")
    }

    // MARK: - A session's pages

    /// Neighbours that are alike.
    private var runs: [ArraySlice<ExplainReport.Page>] {
        var runs: [ArraySlice<ExplainReport.Page>] = []
        for (index, page) in report.pages.enumerated() {
            if let last = runs.last?.last, ExplainView.isAlike(last, page) {
                runs[runs.count - 1] = report.pages[runs[runs.count - 1].startIndex...index]
            } else {
                runs.append(report.pages[index...index])
            }
        }
        return runs
    }

    private static func isAlike(_ a: ExplainReport.Page, _ b: ExplainReport.Page) -> Bool {
        a.first + a.tokens == b.first && a.place == b.place && a.form == b.form && a.mode == b.mode
            && a.isOnDisk == b.isOnDisk && a.reasons == b.reasons && a.priority == b.priority
    }

    private var table: [String] {
        var table = TextTable([
            ("TOKENS", .left, 0), ("PAGES", .right, 3), ("WHERE", .left, 0), ("FORM", .left, 0), ("RATIO", .right, 0),
            ("ERROR", .right, 4), ("PULL", .right, 1), ("BEFORE", .right, 2), ("WHY", .left, 0),
        ])
        for run in runs {
            guard let first = run.first, let last = run.last else { continue }
            let (raw, stored) = run.reduce((0, 0)) { ($0.0 + $1.rawBytes, $0.1 + $1.bytes) }
            let worst = run.compactMap(\.distortion).max()
            let pull = run.compactMap(\.pullUs)
            table.add([
                "\(first.first)–\(last.first + last.tokens - 1)", Text.count(run.count), ExplainView.place(first),
                first.mode ?? first.form ?? "–",
                stored > 0 ? "\(Text.decimal(Double(raw) / Double(stored), 1))×" : "–",
                worst.map { $0 == 0 ? "0" : Text.decimal($0, 4) } ?? "–",
                pull.count == run.count ? Text.microseconds(pull.reduce(0, +)) : "–",
                ExplainView.turn(run.min { ($0.bytesBefore ?? .max) < ($1.bytesBefore ?? .max) } ?? first),
                first.reasons.map(\.rawValue).joined(separator: ", "),
            ])
        }
        return table.lines
    }

    private static func place(_ page: ExplainReport.Page) -> String {
        switch page.place {
        case "ram": page.isOnDisk ? "RAM+disk" : "RAM"
        case "absent": "gone"
        default: page.place
        }
    }

    /// What has to leave before it.
    private static func turn(_ page: ExplainReport.Page) -> String {
        if let bytes = page.bytesBefore { return bytes == 0 ? "next" : Text.bytes(bytes) }
        if page.place == "ram" { return "late" }
        return page.segmentsBefore.map { $0 == 0 ? "next" : Text.count($0, "file") } ?? "–"
    }

    // MARK: - A page

    private func details(_ page: ExplainReport.Page) -> [String] {
        guard page.place != "absent" else { return ["page \(page.key)", "where     nowhere"] }
        var lines = ["page \(page.key)"]
        func add(_ name: String, _ text: String) {
            let wrapped = Terminal.wrapped(Terminal.shown(text), margin: 10)
            lines.append(name + wrapped[0].dropFirst(name.count))
            lines += wrapped.dropFirst()
        }
        add(
            "where",
            page.place == "ram"
                ? (page.isOnDisk ? "in RAM, and on disk as well" : "in RAM only")
                : page.place == "shared" ? "with other machines only" : "on disk only")
        add("tokens", "\(page.first)–\(page.first + page.tokens - 1), of user \(page.tenant)")
        let ratio = page.bytes > 0 ? ", ratio \(Text.decimal(Double(page.rawBytes) / Double(page.bytes), 2))" : ""
        add(
            "stored",
            "\(page.mode ?? page.form ?? ""), \(Text.bytes(page.bytes)) of \(Text.bytes(page.rawBytes))\(ratio)")
        if let exact = page.exactTokens, let error = page.distortion {
            add(
                "error",
                "\(error == 0 ? "none" : Text.decimal(error, 5)); \(Text.count(exact)) of \(Text.count(page.tokens, "token")) exact"
            )
        } else {
            add(
                "error", "only \(page.place == "shared" ? "those who have it know" : "the disk knows"); a pull reads it"
            )
        }
        if let profile = page.profile { add("profile", String(profile.prefix(12))) }
        for (index, reason) in page.reasons.enumerated() {
            add(index == 0 ? "why" : "", "\(reason.rawValue): \(ExplainView.meaning(reason))")
        }
        let end = page.expiresS.map { "a miss in \(Text.duration(Double($0))) unless used" } ?? "no end"
        add("kept", "priority \(page.priority), \(Text.count(page.leases, "lease")), \(end)")
        add(
            "pull", page.pullUs.map { "\(Text.microseconds($0)) by the latest pulls of its kind" } ?? "not measured yet"
        )
        add("leaves", leaving(page))
        let sessions = page.sessions.map { "\($0)" }.joined(separator: ", ")
        add("sessions", sessions.isEmpty ? "none that is open" : sessions)
        return lines
    }

    private func leaving(_ page: ExplainReport.Page) -> String {
        guard page.place != "shared" else { return "when the servers make room; no lease or pin keeps it there" }
        guard page.place == "ram" else {
            return page.segmentsBefore.map {
                "the disk when its file's turn comes: \(Text.count($0, "file is", "files are")) older"
            } ?? "–"
        }
        let isKept = page.reasons.contains(.pinned) || page.reasons.contains(.leased)
        let turn =
            page.pagesBefore.map { pages in
                pages == 0
                    ? "next of this user's"
                    : "after \(Text.count(pages, "page")) of this user's (\(Text.bytes(page.bytesBefore ?? 0)))"
            } ?? "late: after more of this user's than are looked through"
        let whereTo =
            page.isOnDisk
            ? "its copy on disk stays"
            : isKept ? "it moves to disk, and is never dropped" : "to disk where there is one, else for good"
        return "RAM \(turn), when room is needed; \(whereTo)"
    }

    private static func meaning(_ reason: ExplainReport.Reason) -> String {
        switch reason {
        case .window: "a session's window holds it; exact until it leaves"
        case .sink: "rows of it are a session's first tokens, which stay exact"
        case .range: "rows of it lie in a protected range"
        case .retained: "rows of it stay exact for a session that is over"
        case .lossless: "the policy wants it lossless"
        case .pressure: "may be coded, and waits until RAM runs short (ram.code_above)"
        case .idle: "may be coded, and waits until RAM runs short or nothing else is to be done"
        case .queued: "waits for a coder"
        case .encoding: "a coder has it"
        case .replacing: "its block takes its place right now"
        case .unclaimed: "no open session says how to code it; pushing it again does"
        case .keptLossless: "no coding was smaller within what its policy asks"
        case .coded: "as its policy says"
        case .near: "coded near-losslessly for an idle window; pushing it again makes it exact"
        case .pinned: "never dropped to make room"
        case .leased: "a lease holds it"
        case .promise: "less than this session was promised: a pull gives a miss"
        }
    }
}
