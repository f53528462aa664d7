import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCShared
import KVTCStore
import KVTCSystem

extension StatusReport.Refused {
    fileprivate init(_ refusals: Refusals) {
        self.init()
        total = refusals.counts.values.reduce(0, +)
        byCode = refusals.counts.sorted { $0.key.rawValue < $1.key.rawValue }.map {
            Code(code: "\($0.key)", count: $0.value)
        }
        last = refusals.last.map { last in
            let request = Opcode(rawValue: last.opcode).map { "\($0)" } ?? "\(last.opcode)"
            return Last(last.error, request: request, at: last.time)
        }
    }
}

extension StatusReport.Latency {
    init(_ histogram: LatencyHistogram) {
        self.init()
        (p50, p90, p99) = (histogram.percentile(0.5), histogram.percentile(0.9), histogram.percentile(0.99))
        count = histogram.count
        sumUs = Double(histogram.sum) / 1000
        below = histogram.below(Self.exponents)
    }
}

extension StatusReport.Profile {
    /// - Parameter problem: why it is not in the profile directory.
    init(_ loaded: ProfileRegistry.Loaded, problem: String? = nil) {
        self.init()
        id = loaded.profile.id.description
        file = loaded.file
        model = loaded.profile.model
        bytes = loaded.profile.byteCount
        weights = loaded.profile.metadata.weights
        stored = loaded.isStored
        self.problem = problem
    }
}

extension StatusReport.Session {
    fileprivate init(_ session: Session, rawPages: Int, code: CodingTime, now: UInt64) {
        self.init()
        let (policy, tally) = (session.policy, session.tally)
        (id, name, tenant, connection) = (session.id, session.name, session.tenant, session.connection)
        profile = session.context.codec.profile?.id.description
        (mode, qualityKind, quality) = ("\(policy.mode)", "\(policy.qualityKind)", policy.quality)
        self.code = (policy.code ?? code).rawValue
        (sink, window, tokens) = (policy.sink, policy.window, session.tokens)
        (pages, self.rawPages) = (session.pages.count, rawPages)
        (pinned, ttlS, priority) = (policy.pin, policy.ttlSeconds, policy.priority)
        idleS = Double(now - min(now, session.lastUse)) / 1e9
        (near, distortionLimit, keepOutliers) = (policy.near, policy.distortionLimit, policy.keepsOutliers)
        isIdle = session.isIdle
        (outlierRows, limited) = (tally.outlierRows, tally.limited)
        (keptLossless, nearPages) = (tally.lossless, tally.near)
        (drift, driftPages, drifting) = (session.drift.factor, session.drift.pages, session.drift.isAlarming)
    }
}

extension StatusReport.Counters {
    fileprivate init(_ counted: Metrics.Counters, _ stored: StoreStatistics) {
        self.init()
        (pushed, present, hits, misses) = (counted.pushed, counted.present, counted.hits, counted.misses)
        (corrupt, corruptPulls) = (max(counted.corrupt, stored.corrupt), counted.corrupt)
        (evictedToDisk, dropped, lost) = (stored.evictedToDisk, stored.dropped, stored.lost)
        (encoded, nonFinite, errors) = (counted.encoded, counted.nonFinite, counted.errors + stored.ioErrors)
        (recovered, recoveredFromRam) = (stored.recovered, stored.recoveredFromRAM)
        (outlierRows, limited) = (counted.coding.outlierRows, counted.coding.limited)
        (keptLossless, near) = (counted.coding.lossless, counted.coding.near)
        (renewed, driftAlarms) = (counted.renewed, counted.driftAlarms)
        droppedByRequest = counted.droppedByRequest
    }
}

extension Engine {
    func status(_ caller: Caller) -> JSONReply { JSONReply(report(caller)) }

    // What a tenant learns is about itself; how much others keep or ask for is theirs and the administrator's business.
    private func report(_ caller: Caller) -> StatusReport {
        let scope = caller.isAdministrator ? nil : caller.tenant
        let stored = scope.map(statistics(of:)) ?? store.statistics
        let part = metrics.part(of: scope)
        let counted = part.counters
        let now = MonotonicClock.nanoseconds
        var state = "ready"
        var reason: String?
        // Where the daemon keeps its files is nothing that tenants need to know.
        if case .degraded(let why) = stored.state {
            (state, reason) = ("degraded", scope == nil ? why : "the disk fails")
        }
        if stored.ramRefusal != nil { state = "degraded" }
        if isDraining { state = "draining" }
        if isStopping { state = "stopping" }
        var report = StatusReport()
        (report.version, report.instance) = (Daemon.version, String(instance, radix: 16))
        (report.uptimeS, report.tenant) = (Double(now - started) / 1e9, caller.tenant)
        (report.state, report.stateReason) = (state, reason)
        report.tiers.ram.used = stored.ramUsed
        report.tiers.ram.budget = stored.ramBudget
        report.tiers.ram.pages = stored.ramPages
        report.tiers.ram.refusal = stored.ramRefusal.map { scope == nil ? $0 : "the daemon gets no more memory" }
        report.tiers.disk.used = stored.diskUsed
        report.tiers.disk.budget = stored.diskBudget
        report.tiers.disk.pages = stored.diskPages
        report.tiers.disk.segments = stored.segments
        report.pages.raw = stored.rawPages
        report.pages.coded = stored.codedPages
        report.pages.diskOnly = stored.diskOnlyPages
        report.pages.waiting = ledger.withLock { $0.waitingPages(of: scope) }
        report.bytes.rawIn = counted.rawBytesIn
        report.bytes.stored = stored.storedBytes
        report.bytes.returned = counted.bytesReturned
        report.bytes.written = scope == nil ? store.bytesWritten : nil
        report.ratio = stored.storedBytes == 0 ? nil : Double(stored.rawBytes) / Double(stored.storedBytes)
        report.counters = StatusReport.Counters(counted, stored)
        report.counters.logDropped = scope == nil ? LogWriter.standardError.droppedLines : 0
        report.refused = StatusReport.Refused(counted.refusals)
        report.queues.encode = scope.map(pendingEncodes(of:)) ?? pendingEncodes
        report.queues.decode = scope == nil ? pool.waiting(.urgent) : 0
        report.latencyUs.push = StatusReport.Latency(part.latency(.push))
        report.latencyUs.pull = StatusReport.Latency(part.latency(.pull))
        report.latencyUs.encode = StatusReport.Latency(part.latency(.encode))
        report.latencyUs.decode = StatusReport.Latency(part.latency(.decode))
        if scope == nil, let fleet = shared as? FleetTier { report.shared = SharedReport(fleet.statistics) }
        report.restoreCosts = restoreCosts(scope)
        report.profiles = (profiles.all + (scope == nil ? profiles.former : [])).map { StatusReport.Profile($0) }
        report.profileDirectory = scope == nil ? profiles.directory : nil
        report.leases = leaseCount(scope)
        report.tenants = tenantRows(scope)
        report.sessions = sessionRows(caller, now)
        return report
    }

    /// The store as one tenant sees it: its own pages, against what it may have.
    private func statistics(of tenant: UInt32) -> StoreStatistics {
        let all = store.statistics
        let limits = limits
        var own = StoreStatistics()
        if let usage = store.usage[tenant] {
            own.add(usage)
            own.ramUsed = usage.ramBytes
            own.diskUsed = usage.diskBytes
        }
        (own.state, own.ramRefusal) = (all.state, all.ramRefusal)
        own.ramBudget = limits.ramPerUser == 0 ? all.ramBudget : min(limits.ramPerUser, all.ramBudget)
        own.diskBudget = limits.diskPerUser == 0 ? all.diskBudget : min(limits.diskPerUser, all.diskBudget)
        return own
    }

    private func pendingEncodes(of tenant: UInt32) -> Int {
        ledger.withLock { ledger in ledger.pages.keys.count { $0.tenant == tenant && ledger.isPending($0) } }
    }

    private func restoreCosts(_ scope: UInt32?) -> [StatusReport.RestoreCost] {
        let rows = metrics.costs(of: scope).map { tenant, shape, costs in
            func of(_ source: PageSource) -> StatusReport.RestoreCost.Source {
                .init(nanoseconds: costs.nanoseconds(source), pulls: costs.pulls[source.rawValue])
            }
            return StatusReport.RestoreCost(
                tenant: tenant, profile: shape.profile?.description, tokenBytes: shape.tokenBytes, raw: of(.raw),
                coded: of(.coded), disk: of(.disk), shared: of(.shared))
        }
        return rows.sorted {
            ($0.tenant, $0.profile ?? "", $0.tokenBytes) < ($1.tenant, $1.profile ?? "", $1.tokenBytes)
        }
    }

    private func leaseCount(_ scope: UInt32?) -> Int {
        let now = store.milliseconds
        return leases.withLock { leases in
            leases.values.count { $0.deadline > now && (scope == nil || $0.tenant == scope) }
        }
    }

    private func tenantRows(_ scope: UInt32?) -> [StatusReport.Tenant] {
        store.usage.filter { scope == nil || $0.key == scope }.sorted { $0.key < $1.key }.map { tenant, usage in
            var row = StatusReport.Tenant()
            (row.tenant, row.pages, row.ram, row.disk) = (tenant, usage.pages, usage.ramBytes, usage.diskBytes)
            (row.stored, row.evictedToDisk, row.dropped) = (usage.storedBytes, usage.evictedToDisk, usage.dropped)
            return row
        }
    }

    // Other tenants' sessions are shown to administrators only.
    private func sessionRows(_ caller: Caller, _ now: UInt64) -> [StatusReport.Session] {
        ledger.withLock { ledger in
            let visible = ledger.sessions.values.filter { $0.tenant == caller.tenant || caller.isAdministrator }
            return visible.sorted { $0.id < $1.id }.map { session in
                StatusReport.Session(session, rawPages: ledger.rawPages(session.id), code: ledger.code, now: now)
            }
        }
    }
}

/// Facts about the program.
public enum Daemon {
    /// The release.
    public static let version = "0.1.0"
}
