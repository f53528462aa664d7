import KVTCProtocol

/// What is exported of a daemon's status. Names end in their unit, counters in `_total`, as Prometheus' conventions have it;
/// `Monitoring.md` lists them all.
struct Families {
    private var out = Exposition()

    /// - Parameters:
    ///   - report: nil where the daemon gave none.
    ///   - names: whether tenants may be told apart.
    static func text(_ report: StatusReport?, names: Bool) -> String {
        var families = Families()
        families.single("kvtcd_up", .gauge, "Whether the daemon answered this scrape.", report == nil ? 0 : 1)
        if let report {
            families.add(report)
            if names { families.add(report.tenants) }
        }
        return families.out.text
    }

    private mutating func single(_ name: String, _ kind: Exposition.Kind, _ help: String, _ value: Double) {
        out.family(name, kind, help)
        out.sample(name, [], value)
    }

    private mutating func each(
        _ name: String, _ kind: Exposition.Kind, _ help: String, by label: String, _ values: [(String, Double)]
    ) {
        out.family(name, kind, help)
        for (value, number) in values { out.sample(name, [(label, value)], number) }
    }

    private mutating func add(_ report: StatusReport) {
        out.family("kvtcd_info", .gauge, "The daemon's release; always 1.")
        out.sample("kvtcd_info", [("version", report.version), ("instance_id", report.instance)], 1)
        single("kvtcd_uptime_seconds", .gauge, "Time since the daemon started.", report.uptimeS)
        each(
            "kvtcd_state", .gauge, "1 for the state that the daemon is in.", by: "state",
            ["ready", "degraded", "draining", "stopping"].map { ($0, report.state == $0 ? 1 : 0) })
        addTiers(report)
        addTraffic(report.counters, report)
        addLatencies(report.latencyUs)
        addCosts(report.restoreCosts)
        if let shared = report.shared { add(shared) }
        each(
            "kvtcd_queue_jobs", .gauge, "Jobs that wait to be coded or decoded.", by: "queue",
            [("encode", Double(report.queues.encode)), ("decode", Double(report.queues.decode))])
        single("kvtcd_leases", .gauge, "Leases that hold pages in RAM.", Double(report.leases))
        single("kvtcd_profiles", .gauge, "Profiles in memory.", Double(report.profiles.count))
        single("kvtcd_sessions", .gauge, "Sessions that are open.", Double(report.sessions.count))
        single(
            "kvtcd_drifting_sessions", .gauge, "Sessions whose pages no longer fit their profile.",
            Double(report.sessions.count(where: \.drifting)))
        single(
            "kvtcd_drift_ratio", .gauge,
            "Distortion of the latest pages over what the profile expects, of the session where it is largest.",
            report.sessions.compactMap(\.drift).max() ?? 0)
    }

    private mutating func addTiers(_ report: StatusReport) {
        let (ram, disk) = (report.tiers.ram, report.tiers.disk)
        each(
            "kvtcd_tier_used_bytes", .gauge, "Bytes of pages in a tier.", by: "tier",
            [("ram", Double(ram.used)), ("disk", Double(disk.used))])
        each(
            "kvtcd_tier_budget_bytes", .gauge, "Bytes that a tier may hold; 0 for one that is off.", by: "tier",
            [("ram", Double(ram.budget)), ("disk", Double(disk.budget))])
        each(
            "kvtcd_tier_pages", .gauge, "Pages in a tier.", by: "tier",
            [("ram", Double(ram.pages)), ("disk", Double(disk.pages))])
        single(
            "kvtcd_ram_refused", .gauge, "1 where the kernel gives no memory for the rest of the RAM budget.",
            ram.refusal == nil ? 0 : 1)
        each(
            "kvtcd_pages", .gauge, "Pages by what they are: raw or coded in RAM, or on disk only.", by: "form",
            [
                ("raw", Double(report.pages.raw)), ("coded", Double(report.pages.coded)),
                ("disk_only", Double(report.pages.diskOnly)),
            ])
        single("kvtcd_stored_bytes", .gauge, "Bytes of all pages as they are kept.", Double(report.bytes.stored))
        single(
            "kvtcd_compression_ratio", .gauge,
            "Raw over stored bytes of the pages that are there, protected tokens included; 0 without pages.",
            report.ratio ?? 0)
    }

    private mutating func addTraffic(_ counters: StatusReport.Counters, _ report: StatusReport) {
        func total(_ name: String, _ help: String, _ value: UInt64) {
            single("kvtcd_\(name)_total", .counter, help, Double(value))
        }
        total("received_bytes", "Bytes of pages taken from workers.", report.bytes.rawIn)
        total("returned_bytes", "Bytes of pages given back to workers.", report.bytes.returned)
        total("disk_written_bytes", "Bytes written to the disk tier.", report.bytes.written ?? 0)
        total("pages_pushed", "Pages taken from workers.", counters.pushed)
        total("pages_present", "Pages pushed that were there already.", counters.present)
        total("page_hits", "Pages that were asked for and given.", counters.hits)
        each(
            "kvtcd_page_misses_total", .counter, "Pages that were asked for and not given, by reason.", by: "reason",
            [
                ("absent", Double(counters.misses - min(counters.misses, counters.corruptPulls))),
                ("corrupt", Double(counters.corruptPulls)),
            ])
        total("pages_coded", "Pages coded.", counters.encoded)
        total("pages_renewed", "Pages coded near-losslessly that were pushed anew.", counters.renewed)
        total("pages_kept_lossless", "Pages outside of the window that no coding suited.", counters.keptLossless)
        total("pages_limited", "Pages with a lower ratio than asked for, to keep the limit.", counters.limited)
        total("rows_outlying", "Rows that stayed lossless by themselves.", counters.outlierRows)
        total("pages_non_finite", "Pages with infinities or NaNs.", counters.nonFinite)
        total("pages_evicted_to_disk", "Pages that RAM had no more room for and disk has.", counters.evictedToDisk)
        each(
            "kvtcd_pages_dropped_total", .counter, "Pages let go, by reason.", by: "reason",
            [("room", Double(counters.dropped)), ("request", Double(counters.droppedByRequest))])
        total("pages_lost", "Pages lost to faults.", counters.lost)
        total("pages_corrupt", "Damaged pages, found by any means; none is ever given.", counters.corrupt)
        total("pages_recovered", "Pages found at the start, on disk or in RAM.", counters.recovered)
        total("errors", "Faults of the daemon and its disk.", counters.errors)
        total("drift_alarms", "Times that pages stopped fitting their profile.", counters.driftAlarms)
        total("log_lines_dropped", "Log lines that found no reader.", counters.logDropped)
        each(
            "kvtcd_requests_refused_total", .counter, "Requests that got an error, by code.", by: "code",
            report.refused.byCode.map { ($0.code, Double($0.count)) })
    }

    private mutating func add(_ shared: SharedReport) {
        let prefix = "kvtcd_shared_"
        each(
            prefix + "lookups_total", .counter, "Pages looked for with other machines, by what came of it.",
            by: "outcome",
            [
                ("found", Double(shared.hits)), ("absent", Double(shared.absent)),
                ("known_absent", Double(shared.knownAbsent)),
            ])
        each(
            prefix + "pages_total", .counter, "Pages brought from other machines and written for them.",
            by: "direction", [("in", Double(shared.fetchedPages)), ("out", Double(shared.writtenPages))])
        each(
            prefix + "bytes_total", .counter, "Bytes of those pages.", by: "direction",
            [("in", Double(shared.fetchedBytes)), ("out", Double(shared.writtenBytes))])
        each(
            prefix + "held_back_total", .counter, "Pages not written for other machines, by reason.", by: "reason",
            shared.heldBack.map { ($0.reason, Double($0.count)) })
        each(
            prefix + "faults_total", .counter, "Requests to the servers that got no proper answer, by reason.",
            by: "reason", shared.faults.map { ($0.reason, Double($0.count)) })
        single(prefix + "waiting_pages", .gauge, "Pages that wait to be written.", Double(shared.waiting))
        each(
            prefix + "server_up", .gauge, "1 where the server is asked, 0 where it has failed and is left alone.",
            by: "server", shared.servers.map { ($0.address, $0.isUp ? 1 : 0) })
        addHistogram(
            prefix + "duration_seconds", "How long lookups with other machines and bringing a page took.",
            [("lookup", shared.lookup), ("fetch", shared.fetch)])
    }

    private mutating func addLatencies(_ latencies: StatusReport.Latencies) {
        addHistogram(
            "kvtcd_operation_duration_seconds", "How long operations on a page or a request took in the daemon.",
            [
                ("push", latencies.push), ("pull", latencies.pull), ("encode", latencies.encode),
                ("decode", latencies.decode),
            ])
    }

    private mutating func addHistogram(
        _ name: String, _ help: String, _ operations: [(String, StatusReport.Latency)]
    ) {
        out.family(name, .histogram, help)
        for (operation, latency) in operations {
            for (exponent, count) in zip(StatusReport.Latency.exponents, latency.below) {
                let bound = Double(UInt64(1) << UInt64(exponent)) / 1e9
                out.sample(name + "_bucket", [("operation", operation), ("le", "\(bound)")], Double(count))
            }
            out.sample(name + "_bucket", [("operation", operation), ("le", "+Inf")], Double(latency.count))
            out.sample(name + "_sum", [("operation", operation)], latency.sumUs / 1e6)
            out.sample(name + "_count", [("operation", operation)], Double(latency.count))
        }
    }

    /// Tenants whose pages are alike share a sample, of the one that waits longest.
    private mutating func addCosts(_ costs: [StatusReport.RestoreCost]) {
        var slowest: [String: (labels: [(String, String)], seconds: Double)] = [:]
        for row in costs {
            let sources = [("raw", row.raw), ("coded", row.coded), ("disk", row.disk), ("shared", row.shared)]
            for (source, cost) in sources {
                guard let microseconds = cost?.usPerToken else { continue }
                let labels = [
                    ("source", source), ("profile", row.profile ?? ""), ("token_bytes", "\(row.tokenBytes)"),
                ]
                let key = labels.map(\.1).joined(separator: " ")
                slowest[key] = (labels, max(slowest[key]?.seconds ?? 0, microseconds / 1e6))
            }
        }
        let name = "kvtcd_restore_token_seconds"
        out.family(name, .gauge, "What bringing a token back takes, by where its page is: median of the latest pulls.")
        for (_, sample) in slowest.sorted(by: { $0.key < $1.key }) {
            out.sample(name, sample.labels, sample.seconds)
        }
    }

    private mutating func add(_ tenants: [StatusReport.Tenant]) {
        each(
            "kvtcd_tenant_ram_bytes", .gauge, "Bytes of a tenant's pages in RAM.", by: "tenant",
            tenants.map { ("\($0.tenant)", Double($0.ram)) })
        each(
            "kvtcd_tenant_disk_bytes", .gauge, "Bytes of a tenant's pages on disk.", by: "tenant",
            tenants.map { ("\($0.tenant)", Double($0.disk)) })
        each(
            "kvtcd_tenant_pages", .gauge, "A tenant's pages.", by: "tenant",
            tenants.map { ("\($0.tenant)", Double($0.pages)) })
    }
}
