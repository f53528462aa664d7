import KVTCClient

/// A status document for people.
struct StatusView {
    private let report: StatusReport

    init(_ report: StatusReport) { self.report = report }

    var text: String {
        var lines = [headline]
        if let reason = report.stateReason, !reason.isEmpty {
            lines.append("The disk tier fails (\(reason)): pages stay in RAM until it works again.")
        }
        lines.append("")
        lines += drifting
        lines += tiers + [""]
        lines += facts + [""]
        lines += latencies
        if !report.profiles.isEmpty { lines += [""] + profiles }
        lines.append("")
        lines += report.sessions.isEmpty ? ["no sessions"] : StatusView.sessions(report.sessions)
        return lines.joined(separator: "\n")
    }

    private var headline: String {
        "\(Text.bold("kvtcd \(report.version)"))  \(report.state)  up \(Text.duration(report.uptimeS))"
            + "  instance \(report.instance)"
    }

    /// What to do about sessions whose profile does not fit.
    private var drifting: [String] {
        let drifting = report.sessions.filter { $0.drifting == true }
        guard !drifting.isEmpty else { return [] }
        let names = drifting.sorted { $0.id < $1.id }.map { session in
            let times = session.drift.map { " (\(Text.decimal($0, 1))×)" } ?? ""
            return session.name.isEmpty ? "\(session.id)\(times)" : "\(session.id) \(session.name)\(times)"
        }
        return [
            "Drift: the profile expects far less distortion than session \(names.joined(separator: ", ")) has. "
                + "Calibrate anew with texts like its own, or ask for a lower ratio (kvtcctl policy set).",
            "",
        ]
    }

    private var tiers: [String] {
        var table = TextTable([("TIER", .left), ("", .left), ("USED", .right), ("BUDGET", .right), ("PAGES", .right)])
        for (name, tier) in [("RAM", report.tiers.ram), ("disk", report.tiers.disk)] {
            let fraction = tier.budget > 0 ? Double(tier.used) / Double(tier.budget) : 0
            let share = tier.budget > 0 ? "\(Text.decimal(fraction * 100, 0)) %" : "off"
            table.add([
                name, "\(Text.bar(fraction)) \(share)", Text.bytes(tier.used), Text.bytes(tier.budget),
                Text.count(tier.pages),
            ])
        }
        return table.lines
    }

    private var facts: [String] {
        let counters = report.counters
        func number(_ name: String) -> String { Text.count(counters[name] ?? 0) }
        let hits = counters["hits"] ?? 0
        let asked = hits + (counters["misses"] ?? 0) + (counters["corrupt"] ?? 0)
        let rate = asked > 0 ? " (\(Text.decimal(Double(hits) / Double(asked) * 100, 1)) % hits)" : ""
        let pages = report.pages
        let bytes = report.bytes
        let ratio = report.ratio > 0 ? Text.decimal(report.ratio, 2) : "–"
        return [
            "pages    \(Text.count(pages.raw)) raw, \(Text.count(pages.coded)) coded, "
                + "\(Text.count(pages.diskOnly)) on disk only",
            "ratio    \(ratio)",
            "bytes    \(Text.bytes(bytes.rawIn)) pushed, \(Text.bytes(bytes.stored)) stored, "
                + "\(Text.bytes(bytes.returned)) returned",
            "pushes   \(number("pushed")) pages, \(number("present")) present already, "
                + "\(number("encoded")) encoded, \(number("non_finite")) with NaN or infinity",
            "quality  \(number("outlier_rows")) outlier rows kept lossless, \(number("limited")) pages at a lower ratio "
                + "for their limit, \(number("kept_lossless")) kept lossless",
            "near     \(number("near")) pages coded near-losslessly, \(number("renewed")) of them pushed anew",
            "pulls    \(number("hits")) hits, \(number("misses")) misses, \(number("corrupt")) corrupt\(rate)",
            "evicted  \(number("evicted_to_disk")) to disk, \(number("dropped")) dropped",
            "queues   \(Text.count(report.queues.encode)) to encode, \(Text.count(report.queues.decode)) to decode",
            "errors   \(number("errors"))",
        ]
    }

    private var latencies: [String] {
        var table = TextTable([
            ("LATENCY", .left), ("P50", .right), ("P90", .right), ("P99", .right), ("COUNT", .right),
        ])
        for name in ["push", "pull", "encode", "decode"] {
            guard let latency = report.latencyUs[name] else { continue }
            let values = [latency.p50, latency.p90, latency.p99].map { latency.count > 0 ? Text.microseconds($0) : "–" }
            table.add([name] + values + [Text.count(latency.count)])
        }
        return table.lines
    }

    private var profiles: [String] {
        var table = TextTable([("PROFILE", .left), ("MODEL", .left), ("FILE", .left)])
        for profile in report.profiles { table.add([String(profile.id.prefix(12)), profile.model, profile.file]) }
        return table.lines
    }

    /// The table of sessions, also shown by `kvtcctl sessions`.
    static func sessions(_ sessions: [StatusReport.Session]) -> [String] {
        var table = TextTable([
            ("SESSION", .right), ("NAME", .left), ("UID", .right), ("MODE", .left), ("SINK", .right),
            ("WINDOW", .right),
            ("TOKENS", .right), ("PAGES", .right), ("RAW", .right), ("OUTLIERS", .right), ("DRIFT", .right),
            ("PRIO", .right), ("TTL", .right), ("IDLE", .right),
        ])
        for session in sessions.sorted(by: { $0.id < $1.id }) {
            let lossless = session.mode == "lossless"
            let target =
                session.qualityKind == "ratio" ? "\(Text.decimal(session.quality, 1))×" : "≤ \(session.quality)"
            table.add([
                "\(session.id)", session.name, "\(session.tenant)",
                lossless ? session.mode : "\(session.mode) \(target)",
                "\(session.sink)", "\(session.window)", Text.count(session.tokens), Text.count(session.pages),
                Text.count(session.rawPages), Text.count(session.outlierRows ?? 0), drift(session),
                "\(session.priority)\(session.pinned ? " pinned" : "")",
                session.ttlS == 0 ? "–" : Text.duration(Double(session.ttlS)), Text.duration(session.idleS),
            ])
        }
        return table.lines
    }

    private static func drift(_ session: StatusReport.Session) -> String {
        guard let drift = session.drift else { return "–" }
        return "\(Text.decimal(drift, 1))×\(session.drifting == true ? " !" : "")"
    }
}
