import KVTCProtocol

/// How things are, and how they went since the report before.
struct TopFigures: Encodable {
    let state: String
    let ramUsed, ramBudget, diskUsed, diskBudget: Int
    /// Raw bytes over stored bytes.
    @OrNull private(set) var ratio: Double?
    /// Of the pages asked for since the report before; nil where none was, or there is no report before.
    @OrNull private(set) var hitRatio: Double?
    @OrNull private(set) var pushedBytesPerS: Double?
    @OrNull private(set) var pushedPagesPerS: Double?
    @OrNull private(set) var returnedBytesPerS: Double?
    @OrNull private(set) var hitsPerS: Double?
    @OrNull private(set) var missesPerS: Double?
    @OrNull private(set) var encodedPerS: Double?
    /// Pages that may be coded and wait for a reason, and jobs that wait.
    let waiting, toEncode, toDecode: Int
    let sessions, drifting: Int

    init(_ report: StatusReport, since before: StatusReport?) {
        state = report.state
        (ramUsed, ramBudget) = (report.tiers.ram.used, report.tiers.ram.budget)
        (diskUsed, diskBudget) = (report.tiers.disk.used, report.tiers.disk.budget)
        ratio = report.ratio
        (waiting, toEncode, toDecode) = (report.pages.waiting, report.queues.encode, report.queues.decode)
        (sessions, drifting) = (report.sessions.count, report.sessions.count { $0.drifting })
        // Another instance counts from zero.
        guard let before, before.instance == report.instance, report.uptimeS > before.uptimeS else { return }
        let seconds = report.uptimeS - before.uptimeS
        func rate(_ now: UInt64, _ then: UInt64) -> Double { Double(now - min(now, then)) / seconds }
        let (now, then) = (report.counters, before.counters)
        pushedBytesPerS = rate(report.bytes.rawIn, before.bytes.rawIn)
        pushedPagesPerS = rate(now.pushed, then.pushed)
        returnedBytesPerS = rate(report.bytes.returned, before.bytes.returned)
        encodedPerS = rate(now.encoded, then.encoded)
        let hits = rate(now.hits, then.hits)
        let misses = rate(now.misses + now.corruptPulls, then.misses + then.corruptPulls)
        (hitsPerS, missesPerS) = (hits, misses)
        hitRatio = hits + misses > 0 ? hits / (hits + misses) : nil
    }
}
