import KVTCProtocol
import Testing

@Suite struct StatusReportTests {
    private var report: StatusReport {
        var report = StatusReport()
        report.uptimeS = 12.5
        report.tiers.disk.segments = 1
        report.counters.recoveredFromRam = 3
        report.latencyUs.push.p50 = 1.5
        var session = StatusReport.Session()
        (session.ttlS, session.quality, session.near, session.name) = (60, 0.01, 0.002, "chat\u{1B}")
        report.sessions = [session]
        return report
    }

    @Test func whatIsWrittenIsRead() throws {
        let reply = JSONReply(report)
        let again = try reply.decoded(as: StatusReport.self)
        #expect(JSONReply(again) == reply)
        #expect(again.uptimeS == 12.5 && again.tiers.disk.segments == 1 && again.counters.recoveredFromRam == 3)
        #expect(again.latencyUs.push.p50 == 1.5 && again.stateReason == nil)
        let session = try #require(again.sessions.first)
        #expect(session.ttlS == 60 && session.quality == 0.01 && session.near == 0.002 && session.drift == nil)
        #expect(session.name == "chat\u{1B}")
    }

    // Scripts read these names.
    @Test func keysAreInSnakeCaseAndAlwaysThere() {
        let json = JSONReply(report).json
        for part in [
            "\"uptime_s\":12.5", "\"state_reason\":null", "\"recovered_from_ram\":3", "\"latency_us\":{", "\"p50\":1.5",
            "\"ttl_s\":60", "\"quality\":0.01", "\"distortion_limit\":null", "\"drift\":null", "\"is_idle\":false",
            "\"by_code\":[]", "\"last\":null", "\"disk_only\":0", "\"raw_in\":0", "\"written\":null",
        ] {
            #expect(json.contains(part), "\(part)")
        }
        #expect(!json.contains("\u{1B}"))
    }

    @Test func unknownKeysArePassedOver() throws {
        let json = JSONReply(report).json.dropLast() + ",\"later\":{\"x\":[1]}}"
        #expect(try JSONReply(json: String(json)).decoded(as: StatusReport.self).uptimeS == 12.5)
    }

    @Test func whatIsNoStatusIsRefused() {
        for json in ["{\"version\":1}", ""] {
            #expect(throws: (any Error).self) { try JSONReply(json: json).decoded(as: StatusReport.self) }
        }
    }
}
