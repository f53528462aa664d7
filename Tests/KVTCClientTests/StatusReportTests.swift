import KVTCClient
import Testing

struct StatusReportTests {
    private let document = """
        {"version":"0.1.0","instance":"1f","uptime_s":12.5,"tenant":0,"state":"ready","later":1,
        "tiers":{"ram":{"used":5,"budget":10,"pages":2},"disk":{"used":0,"budget":20,"pages":0,"segments":1}},
        "pages":{"raw":1,"coded":1,"disk_only":0},"bytes":{"raw_in":100,"stored":10,"returned":0},"ratio":10,
        "counters":{"evicted_to_disk":3,"hits":4},"queues":{"encode":1,"decode":0},
        "latency_us":{"push":{"p50":1.5,"p90":2,"p99":3,"count":9}},
        "profiles":[{"id":"ab","file":"m.kvtc.safetensors","model":"m"}],"profile_directory":"/p",
        "sessions":[{"id":1,"name":"chat","tenant":0,"connection":4,"profile":"","mode":"lossless","quality_kind":"ratio",
        "quality":16,"sink":4,"window":128,"tokens":64,"pages":1,"raw_pages":1,"pinned":true,"ttl_s":0,"priority":128,
        "idle_s":0.25}]}
        """

    @Test func readsWhatTheDaemonAnswers() throws {
        let report = try StatusReport(json: document)
        #expect(report.uptimeS == 12.5)
        #expect(report.tiers.disk.segments == 1)
        #expect(report.pages.diskOnly == 0)
        #expect(report.counters["evicted_to_disk"] == 3)
        #expect(report.latencyUs["push"]?.count == 9)
        #expect(report.sessions.first?.rawPages == 1)
        #expect(report.sessions.first?.ttlS == 0)
    }

    @Test func refusesWhatIsNoStatus() {
        #expect(throws: (any Error).self) { try StatusReport(json: "{\"version\":1}") }
        #expect(throws: (any Error).self) { try StatusReport(json: "") }
    }
}
