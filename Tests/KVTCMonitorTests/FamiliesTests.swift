import Foundation
import KVTCProtocol
import Testing

@testable import KVTCMonitor

@Suite struct FamiliesTests {
    /// A report with something in every part.
    static var report: StatusReport {
        var report = StatusReport()
        (report.version, report.instance, report.uptimeS) = ("0.1.0", "ab12", 12.5)
        (report.state, report.stateReason) = ("degraded", "the disk fails")
        report.tiers.ram.used = 100
        report.tiers.ram.budget = 400
        report.pages.raw = 3
        (report.counters.hits, report.counters.misses, report.counters.corruptPulls) = (7, 5, 2)
        report.bytes.written = 9_007_199_254_740_993
        report.ratio = 15.25
        report.restoreCosts = [(4711, 2000.0), (4712, 3000)].map { tenant, nanoseconds in
            .init(
                tenant: tenant, profile: "0dc7", tokenBytes: 23_040, raw: .init(nanoseconds: nanoseconds, pulls: 4),
                coded: .init(nanoseconds: nil, pulls: 0), disk: .init(nanoseconds: 9000, pulls: 2),
                shared: .init(nanoseconds: nil, pulls: 0))
        }
        var shared = SharedReport()
        shared.heldBack = [.init(reason: "fault", count: 2)]
        shared.faults = [.init(reason: "timeout", count: 5)]
        shared.servers = [.init(address: "a:1", breaker: "open", inFlight: 0, bytesOut: 0, bytesIn: 0)]
        report.shared = shared
        report.refused.byCode = [.init(code: "no\"such\\thing\n", count: 4)]
        report.latencyUs.pull.count = 3
        report.latencyUs.pull.sumUs = 2500
        report.latencyUs.pull.below = StatusReport.Latency.exponents.map { $0 < 20 ? 1 : 2 }
        var session = StatusReport.Session()
        (session.name, session.tenant, session.drift, session.drifting) = ("secret chat", 4711, 1.75, true)
        report.sessions = [session]
        var tenant = StatusReport.Tenant()
        (tenant.tenant, tenant.ram) = (4711, 64)
        report.tenants = [tenant]
        return report
    }

    /// name → type, and every sample's name with its labels → value.
    private static func parse(_ text: String) throws -> (types: [String: String], samples: [String: Double]) {
        var (types, samples, helped): ([String: String], [String: Double], Set<String>) = ([:], [:], [])
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3).map(String.init)
            if line.hasPrefix("# HELP ") {
                #expect(helped.insert(words[2]).inserted, "a family comes once: \(words[2])")
            } else if line.hasPrefix("# TYPE ") {
                #expect(helped.contains(words[2]))
                types[words[2]] = words[3]
            } else {
                let space = try #require(line.lastIndex(of: " "))
                let key = String(line[..<space])
                #expect(samples[key] == nil, "a sample comes once: \(key)")
                let value: Double = try #require(Double(line[line.index(after: space)...]))
                samples[key] = value
            }
        }
        return (types, samples)
    }

    @Test func everySampleHasTheReportsNumberAndAFamily() throws {
        let (types, samples) = try Self.parse(Families.text(Self.report, names: true))
        for key in samples.keys {
            let name = String(key.prefix { $0 != "{" })
            let family = ["_bucket", "_sum", "_count"].reduce(name) { name, suffix in
                name.hasSuffix(suffix) && types[name] == nil ? String(name.dropLast(suffix.count)) : name
            }
            let type = try #require(types[family], "\(name) has no family")
            #expect(family.hasSuffix("_total") == (type == "counter"), "\(name)")
        }
        #expect(samples["kvtcd_up"] == 1)
        #expect(samples["kvtcd_state{state=\"degraded\"}"] == 1 && samples["kvtcd_state{state=\"ready\"}"] == 0)
        #expect(samples["kvtcd_tier_used_bytes{tier=\"ram\"}"] == 100)
        #expect(samples["kvtcd_page_misses_total{reason=\"absent\"}"] == 3)
        #expect(samples["kvtcd_page_misses_total{reason=\"corrupt\"}"] == 2)
        #expect(samples["kvtcd_compression_ratio"] == 15.25)
        #expect(samples["kvtcd_drift_ratio"] == 1.75 && samples["kvtcd_drifting_sessions"] == 1)
        #expect(samples["kvtcd_requests_refused_total{code=\"no\\\"such\\\\thing\\n\"}"] == 4)
        func cost(_ source: String) -> String {
            "kvtcd_restore_token_seconds{source=\"\(source)\",profile=\"0dc7\",token_bytes=\"23040\"}"
        }
        #expect(samples[cost("raw")] == 3e-6 && samples[cost("disk")] == 9e-6 && samples[cost("coded")] == nil)
        #expect(samples["kvtcd_tenant_ram_bytes{tenant=\"4711\"}"] == 64)
    }

    @Test func histogramsOnlyRiseUpToTheirCount() throws {
        let (types, samples) = try Self.parse(Families.text(Self.report, names: false))
        let name = "kvtcd_operation_duration_seconds"
        #expect(types[name] == "histogram")
        let pull = samples.filter { $0.key.hasPrefix(name + "_bucket{operation=\"pull\"") }
        let bounds = pull.map { key, count in
            (Double(key.split(separator: "\"").dropLast().last!.replacing("+Inf", with: "inf"))!, count)
        }
        let rising = bounds.sorted { $0.0 < $1.0 }.map(\.1)
        #expect(rising.count == StatusReport.Latency.exponents.count + 1 && rising == rising.sorted())
        #expect(rising.last == 3 && samples[name + "_count{operation=\"pull\"}"] == 3)
        #expect(samples[name + "_sum{operation=\"pull\"}"] == 0.0025)
    }

    @Test func withoutADaemonOnlyThatIsSaid() throws {
        #expect(try Self.parse(Families.text(nil, names: true)).samples == ["kvtcd_up": 0])
    }

    @Test func namesAreLeftOutUnlessAskedFor() {
        #expect(!Families.text(Self.report, names: false).contains("4711"))
    }

    @Test func theManualListsEveryMetricAndNoOther() throws {
        let manual = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Sources/KVTCDaemon/KVTCDaemon.docc/Monitoring.md")
        let rows = try String(contentsOf: manual, encoding: .utf8).split(separator: "\n").filter {
            $0.hasPrefix("| `kvtcd_")
        }
        let listed = rows.map { String($0.split(separator: "`")[1]) }
        #expect(listed == Set(listed).sorted(), "sorted, each once")
        #expect(Set(listed) == Set(try Self.parse(Families.text(Self.report, names: true)).types.keys))
    }
}
