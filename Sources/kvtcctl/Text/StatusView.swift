import Glibc
import KVTCClient
import KVTCProtocol

/// A status document for people.
struct StatusView {
    private let report: StatusReport

    init(_ report: StatusReport) { self.report = report }

    var text: String {
        var lines = [headline]
        if let reason = report.stateReason, !reason.isEmpty {
            lines += Terminal.wrapped(
                Terminal.shown("The disk tier fails (\(reason)): pages stay in RAM until it works again."))
        }
        if let refusal = report.tiers.ram.refusal {
            let text =
                "The kernel gives no memory for the rest of the RAM budget (\(refusal.escapedForDisplay)): raise the limit of the "
                + "daemon's process (man kvtcd.toml, ram.budget), or lower ram.budget."
            lines += Terminal.wrapped(Terminal.shown(text))
        }
        lines.append("")
        lines += drifting
        lines += tiers + [""]
        lines += facts + [""]
        lines += StatusView.latencies(report.latencyUs).lines
        if !report.restoreCosts.isEmpty { lines += [""] + restoreCosts }
        if !report.profiles.isEmpty { lines += [""] + profiles }
        lines.append("")
        lines += report.sessions.isEmpty ? ["no sessions"] : StatusView.sessions(report.sessions)
        return lines.joined(separator: "\n")
    }

    private var headline: String {
        Terminal.bold(Terminal.shown("kvtcd \(report.version)"))
            + Terminal.shown("  \(report.state)  up \(Text.duration(report.uptimeS))  instance \(report.instance)")
    }

    /// What to do about sessions whose profile does not fit.
    private var drifting: [String] {
        let drifting = report.sessions.filter { $0.drifting }
        guard !drifting.isEmpty else { return [] }
        let names = drifting.sorted { $0.id < $1.id }.map { session in
            let times = session.drift.map { " (\(Text.decimal($0, 1))×)" } ?? ""
            return session.name.isEmpty
                ? "\(session.id)\(times)" : "\(session.id) \(session.name.escapedForDisplay)\(times)"
        }
        let text =
            "Drift: the profile expects far less distortion than session \(names.joined(separator: ", ")) has. "
            + "Calibrate anew with texts like its own, or ask for a lower ratio (kvtcctl policy set)."
        return Terminal.wrapped(Terminal.shown(text)) + [""]
    }

    private var tiers: [String] {
        var table = TextTable([("TIER", .left), ("", .left), ("USED", .right), ("BUDGET", .right), ("PAGES", .right)])
        let (ram, disk) = (report.tiers.ram, report.tiers.disk)
        for (name, used, budget, pages) in [
            ("RAM", ram.used, ram.budget, ram.pages), ("disk", disk.used, disk.budget, disk.pages),
        ] {
            let fraction = budget > 0 ? Double(used) / Double(budget) : 0
            let share = budget > 0 ? "\(Text.decimal(fraction * 100, 0)) %" : "off"
            table.add([
                name, "\(Text.bar(fraction)) \(share)", Text.bytes(used), Text.bytes(budget), Text.count(pages),
            ])
        }
        return table.lines
    }

    private var facts: [String] {
        let counters = report.counters
        // What VERIFY found no PULL asked for.
        let (hits, misses, corrupt) = (counters.hits, counters.misses, counters.corruptPulls)
        let asked = hits + misses + corrupt
        let rate = asked > 0 ? " (\(Text.decimal(Double(hits) / Double(asked) * 100, 1)) % hits)" : ""
        let (pages, bytes) = (report.pages, report.bytes)
        let facts =
            [
                "pages    \(Text.count(pages.raw)) raw\(waiting), \(Text.count(pages.coded)) coded, "
                    + "\(Text.count(pages.diskOnly)) on disk only",
                "ratio    \(report.ratio.map { Text.decimal($0, 2) } ?? "–")",
                "bytes    \(Text.bytes(bytes.rawIn)) pushed, \(Text.bytes(bytes.stored)) stored, "
                    + "\(Text.bytes(bytes.returned)) returned",
                "pushes   \(Text.count(counters.pushed, "page")), \(Text.count(counters.present)) present already, "
                    + "\(Text.count(counters.encoded)) encoded, \(Text.count(counters.nonFinite)) with NaN or infinity",
                "quality  \(Text.count(counters.outlierRows, "outlier row")) kept lossless, "
                    + "\(Text.count(counters.limited, "page")) at a lower ratio for their limit, "
                    + "\(Text.count(counters.keptLossless)) kept lossless",
                "near     \(Text.count(counters.near, "page")) coded near-losslessly, \(Text.count(counters.renewed)) of them pushed anew",
                "pulls    \(Text.count(hits, "hit")), \(Text.count(misses, "miss", "misses")), "
                    + "\(Text.count(corrupt)) corrupt\(rate)",
                "damage   \(Text.count(counters.corrupt, "copy", "copies")) of pages found corrupt and taken out",
                "evicted  \(Text.count(counters.evictedToDisk)) to disk, \(Text.count(counters.dropped)) for want of room",
                "dropped  \(Text.count(counters.droppedByRequest, "page")) on request",
                "queues   \(Text.count(report.queues.encode)) to encode, \(Text.count(report.queues.decode)) to decode",
                "refused  \(refused)",
                "errors   \(Text.count(counters.errors))",
            ] + (report.shared.map(SharedView.facts) ?? [])
        return facts.flatMap { Terminal.wrapped(Terminal.shown($0), indent: 9) }
    }

    private var waiting: String {
        let waiting = report.pages.waiting
        return waiting == 0 ? "" : " (\(Text.count(waiting)) may be coded when RAM runs short or it is quiet)"
    }

    private var refused: String {
        let refused = report.refused
        guard refused.total > 0 else { return "0 requests" }
        let codes = refused.byCode.map { "\(Text.count($0.count)) \($0.code)" }.joined(separator: ", ")
        var text = "\(Text.count(refused.total, "request")) (\(codes))"
        if let last = refused.last {
            let now = UInt64(max(time(nil), 0))
            text += "; last \(Text.duration(Double(now - min(now, last.at)))) ago, \(last.request): "
            text += (last.field.isEmpty ? last.message : "\(last.field): \(last.message)").escapedForDisplay
        }
        return text
    }

    /// The table of latencies, also shown by `kvtcctl top`.
    static func latencies(_ measured: StatusReport.Latencies) -> TextTable {
        var table = TextTable([
            ("LATENCY", .left), ("P50", .right), ("P90", .right), ("P99", .right), ("COUNT", .right),
        ])
        for (name, latency) in [
            ("push", measured.push), ("pull", measured.pull), ("encode", measured.encode), ("decode", measured.decode),
        ] {
            let values = [latency.p50, latency.p90, latency.p99].map { latency.count > 0 ? Text.microseconds($0) : "–" }
            table.add([name] + values + [Text.count(latency.count)])
        }
        return table
    }

    /// What bringing pages back takes, for each shape of them.
    private var restoreCosts: [String] {
        var table = TextTable([
            ("A TOKEN BACK", .left), ("BYTES", .right), ("UID", .right), ("RAW", .right), ("CODED", .right),
            ("DISK", .right), ("SHARED", .right),
        ])
        for row in report.restoreCosts {
            let costs = [row.raw, row.coded, row.disk, row.shared].map {
                $0?.usPerToken.map(Text.microseconds) ?? "–"
            }
            let profile = row.profile.map { "profile \($0.prefix(12))" } ?? "no profile"
            table.add([profile, Text.count(row.tokenBytes), "\(row.tenant)"] + costs)
        }
        return table.lines
    }

    private var profiles: [String] {
        var table = TextTable([("PROFILE", .left), ("MODEL", .left), ("FILE", .left), ("SIZE", .right)])
        for profile in report.profiles {
            let file = profile.file?.escapedForDisplay ?? "replaced, still in use"
            table.add([
                String(profile.id.prefix(12)), profile.model.escapedForDisplay,
                profile.stored ? file : "\(file) (in memory only)", Text.bytes(profile.bytes),
            ])
        }
        return table.lines
    }

    /// The table of sessions by number, also shown by `kvtcctl sessions`.
    static func sessions(_ sessions: [StatusReport.Session]) -> [String] {
        sessionTable(sessions.sorted { $0.id < $1.id }).lines
    }

    /// The same in the order given.
    static func sessionTable(_ sessions: [StatusReport.Session]) -> TextTable {
        var table = TextTable([
            ("SESSION", .right, 0), ("NAME", .left, 0), ("UID", .right, 1), ("MODE", .left, 0), ("SINK", .right, 6),
            ("WINDOW", .right, 5), ("TOKENS", .right, 0), ("PAGES", .right, 0), ("RAW", .right, 4),
            ("OUTLIERS", .right, 7), ("DRIFT", .right, 3), ("PRIO", .right, 5), ("TTL", .right, 6), ("IDLE", .right, 2),
        ])
        for session in sessions {
            let lossless = session.mode == "lossless"
            let target =
                session.qualityKind == "ratio" ? "\(Text.decimal(Double(session.quality), 1))×" : "≤ \(session.quality)"
            table.add([
                "\(session.id)", session.name.escapedForDisplay, "\(session.tenant)",
                lossless ? session.mode : "\(session.mode) \(target)",
                "\(session.sink)", "\(session.window)", Text.count(session.tokens), Text.count(session.pages),
                Text.count(session.rawPages), Text.count(session.outlierRows), drift(session),
                "\(session.priority)\(session.pinned ? " pinned" : "")",
                session.ttlS == 0 ? "–" : Text.duration(Double(session.ttlS)), Text.duration(session.idleS),
            ])
        }
        return table
    }

    private static func drift(_ session: StatusReport.Session) -> String {
        guard let drift = session.drift else { return "–" }
        return "\(Text.decimal(drift, 1))×\(session.drifting ? " !" : "")"
    }
}
