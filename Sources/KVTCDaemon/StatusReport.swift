import Foundation
import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem

/// What STATUS answers; its coding keys are the JSON's names.
struct StatusReport: Encodable {
    struct Tiers: Encodable {
        struct RAM: Encodable { var used: Int, budget: Int, pages: Int }
        struct Disk: Encodable { var used: Int, budget: Int, pages: Int, segments: Int }
        var ram: RAM
        var disk: Disk
    }
    struct Pages: Encodable { var raw: Int, coded: Int, disk_only: Int }
    struct Bytes: Encodable {
        var raw_in: UInt64, stored: UInt64, returned: UInt64
        /// To disk, by all tenants.
        @OrNull var written: UInt64?
    }
    struct Counters: Encodable {
        var pushed: UInt64, present: UInt64, hits: UInt64, misses: UInt64, corrupt: UInt64, evicted_to_disk: UInt64
        var dropped: UInt64, lost: UInt64, encoded: UInt64, non_finite: UInt64, errors: UInt64, recovered: UInt64
        var recovered_from_ram: UInt64, outlier_rows: UInt64, limited: UInt64, kept_lossless: UInt64, near: UInt64
        var renewed: UInt64, drift_alarms: UInt64, corrupt_pulls: UInt64, dropped_by_request: UInt64
        var log_dropped: UInt64
    }
    /// Requests that got an error for their answer, and were not the daemon's fault.
    struct Refused: Encodable {
        struct Code: Encodable { var code: String, count: UInt64 }
        struct Last: Encodable { var code: String, request: String, field: String, message: String, at: UInt64 }
        var total: UInt64
        var by_code: [Code]
        @OrNull var last: Last?

        init(_ refusals: Refusals) {
            total = refusals.counts.values.reduce(0, +)
            by_code = refusals.counts.sorted { $0.key.rawValue < $1.key.rawValue }.map {
                Code(code: "\($0.key)", count: $0.value)
            }
            last = refusals.last.map { last in
                Last(
                    code: "\(last.error.code)",
                    request: Opcode(rawValue: last.opcode).map { "\($0)" } ?? "\(last.opcode)",
                    field: last.error.field, message: last.error.message, at: last.time)
            }
        }
    }
    struct Queues: Encodable { var encode: Int, decode: Int }
    struct Latency: Encodable {
        var p50: Double, p90: Double, p99: Double, count: UInt64

        init(_ histogram: LatencyHistogram) {
            p50 = histogram.percentile(0.5)
            p90 = histogram.percentile(0.9)
            p99 = histogram.percentile(0.99)
            count = histogram.count
        }
    }
    struct Latencies: Encodable { var push: Latency, pull: Latency, encode: Latency, decode: Latency }
    struct Profile: Encodable {
        var id: String
        @OrNull var file: String?
        var model: String, bytes: Int, stored: Bool
        @OrNull var weights: String?
        @OrNull var problem: String?

        /// - Parameter problem: why it is not in the profile directory.
        init(_ loaded: ProfileRegistry.Loaded, problem: String? = nil) {
            id = loaded.profile.id.description
            file = loaded.file
            model = loaded.profile.model
            bytes = loaded.profile.byteCount
            weights = loaded.profile.metadata.weights
            stored = loaded.isStored
            self.problem = problem
        }
    }
    struct TenantRow: Encodable {
        var tenant: UInt32, pages: Int, ram: Int, disk: Int, stored: UInt64, evicted_to_disk: UInt64, dropped: UInt64
    }
    struct SessionRow: Encodable {
        var id: UInt32, name: String, tenant: UInt32, connection: UInt64
        @OrNull var profile: String?
        var mode: String, quality_kind: String, quality: Float, sink: UInt32, window: UInt32, tokens: Int, pages: Int,
            raw_pages: Int
        var pinned: Bool, ttl_s: UInt32, priority: UInt8, idle_s: Double
        @OrNull var near: Float?
        @OrNull var distortion_limit: Float?
        var keep_outliers: Bool, is_idle: Bool
        var outlier_rows: UInt64, limited: UInt64, kept_lossless: UInt64, near_pages: UInt64
        @OrNull var drift: Double?
        var drift_pages: Int, drifting: Bool

        init(_ session: Session, rawPages: Int, now: UInt64) {
            let (policy, tally) = (session.policy, session.tally)
            (id, name, tenant, connection) = (session.id, session.name, session.tenant, session.connection)
            profile = session.context.codec.profile?.id.description
            (mode, quality_kind, quality) = ("\(policy.mode)", "\(policy.qualityKind)", policy.quality)
            (sink, window, tokens) = (policy.sink, policy.window, session.tokens)
            (pages, raw_pages) = (session.pages.count, rawPages)
            (pinned, ttl_s, priority) = (policy.pin, policy.ttlSeconds, policy.priority)
            idle_s = Double(now - min(now, session.lastUse)) / 1e9
            (near, distortion_limit, keep_outliers) = (policy.near, policy.distortionLimit, policy.keepsOutliers)
            is_idle = session.isIdle
            (outlier_rows, limited) = (tally.outlierRows, tally.limited)
            (kept_lossless, near_pages) = (tally.lossless, tally.near)
            (drift, drift_pages, drifting) = (session.drift.factor, session.drift.pages, session.drift.isAlarming)
        }
    }

    var version: String
    var instance: String
    var uptime_s: Double
    var tenant: UInt32
    var state: String
    @OrNull var state_reason: String?
    var tiers: Tiers
    var pages: Pages
    var bytes: Bytes
    @OrNull var ratio: Double?
    var counters: Counters
    var refused: Refused
    var queues: Queues
    var latency_us: Latencies
    var profiles: [Profile]
    @OrNull var profile_directory: String?
    var leases: Int
    var tenants: [TenantRow]
    var sessions: [SessionRow]

    /// The value as one line of JSON with sorted keys.
    static func json(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // All numbers in the report are finite, so that encoding cannot fail; an empty object beats a crash.
        guard let data = try? encoder.encode(value) else { return "{}" }
        return String(decoding: data, as: UTF8.self).visibleJSON
    }
}

extension Engine {
    func status(_ caller: Caller) -> JSONReply { JSONReply(json: StatusReport.json(report(caller))) }

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
        if isStopping { state = "stopping" }
        return StatusReport(
            version: Daemon.version, instance: String(instance, radix: 16),
            uptime_s: Double(now - started) / 1e9, tenant: caller.tenant, state: state,
            state_reason: reason,
            tiers: .init(
                ram: .init(used: stored.ramUsed, budget: stored.ramBudget, pages: stored.ramPages),
                disk: .init(
                    used: stored.diskUsed, budget: stored.diskBudget, pages: stored.diskPages,
                    segments: stored.segments)),
            pages: .init(raw: stored.rawPages, coded: stored.codedPages, disk_only: stored.diskOnlyPages),
            bytes: .init(
                raw_in: counted.rawBytesIn, stored: stored.storedBytes, returned: counted.bytesReturned,
                written: scope == nil ? store.bytesWritten : nil),
            ratio: stored.storedBytes == 0 ? nil : Double(stored.rawBytes) / Double(stored.storedBytes),
            counters: .init(
                pushed: counted.pushed, present: counted.present, hits: counted.hits, misses: counted.misses,
                corrupt: max(counted.corrupt, stored.corrupt), evicted_to_disk: stored.evictedToDisk,
                dropped: stored.dropped, lost: stored.lost, encoded: counted.encoded, non_finite: counted.nonFinite,
                errors: counted.errors + stored.ioErrors, recovered: stored.recovered,
                recovered_from_ram: stored.recoveredFromRAM, outlier_rows: counted.coding.outlierRows,
                limited: counted.coding.limited, kept_lossless: counted.coding.lossless, near: counted.coding.near,
                renewed: counted.renewed, drift_alarms: counted.driftAlarms, corrupt_pulls: counted.corrupt,
                dropped_by_request: counted.droppedByRequest,
                log_dropped: scope == nil ? LogWriter.standardError.droppedLines : 0),
            refused: .init(counted.refusals),
            queues: .init(
                encode: scope.map(pendingEncodes(of:)) ?? pendingEncodes,
                decode: scope == nil ? pool.waiting(.urgent) : 0),
            latency_us: .init(
                push: .init(part.latency(.push)), pull: .init(part.latency(.pull)),
                encode: .init(part.latency(.encode)), decode: .init(part.latency(.decode))),
            profiles: (profiles.all + (scope == nil ? profiles.former : [])).map { StatusReport.Profile($0) },
            profile_directory: scope == nil ? profiles.directory : nil,
            leases: leaseCount(scope), tenants: tenantRows(scope), sessions: sessionRows(caller, now))
    }

    /// The store as one tenant sees it: its own pages, against what it may have.
    private func statistics(of tenant: UInt32) -> StoreStatistics {
        let all = store.statistics
        let limits = configuration.limits
        var own = StoreStatistics()
        if let usage = store.usage[tenant] {
            own.add(usage)
            own.ramUsed = usage.ramBytes
            own.diskUsed = usage.diskBytes
        }
        own.state = all.state
        own.ramBudget = limits.ramPerUser == 0 ? all.ramBudget : min(limits.ramPerUser, all.ramBudget)
        own.diskBudget = limits.diskPerUser == 0 ? all.diskBudget : min(limits.diskPerUser, all.diskBudget)
        return own
    }

    private func pendingEncodes(of tenant: UInt32) -> Int {
        ledger.withLock { ledger in ledger.pages.keys.count { $0.tenant == tenant && ledger.isPending($0) } }
    }

    private func leaseCount(_ scope: UInt32?) -> Int {
        let now = store.milliseconds
        return leases.withLock { leases in
            leases.values.count { $0.deadline > now && (scope == nil || $0.tenant == scope) }
        }
    }

    private func tenantRows(_ scope: UInt32?) -> [StatusReport.TenantRow] {
        store.usage.filter { scope == nil || $0.key == scope }.sorted { $0.key < $1.key }.map { tenant, usage in
            StatusReport.TenantRow(
                tenant: tenant, pages: usage.pages, ram: usage.ramBytes, disk: usage.diskBytes,
                stored: usage.storedBytes, evicted_to_disk: usage.evictedToDisk, dropped: usage.dropped)
        }
    }

    // Other tenants' sessions are shown to administrators only.
    private func sessionRows(_ caller: Caller, _ now: UInt64) -> [StatusReport.SessionRow] {
        ledger.withLock { ledger in
            let visible = ledger.sessions.values.filter { $0.tenant == caller.tenant || caller.isAdministrator }
            return visible.sorted { $0.id < $1.id }.map { session in
                StatusReport.SessionRow(session, rawPages: ledger.rawPages(session.id), now: now)
            }
        }
    }
}

/// Facts about the program.
public enum Daemon {
    /// The release.
    public static let version = "0.1.0"
}
