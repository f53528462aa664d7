import CMicroHTTPD
import KVTCProtocol

/// Answers requests: what each path has, and who may ask.
final class MonitorHandler: Sendable {
    private let collector: Collector
    private let names: Bool
    /// Whether what a client believes to talk to must be this machine.
    private let checksHost: Bool

    init(collector: Collector, names: Bool, checksHost: Bool) {
        (self.collector, self.names, self.checksHost) = (collector, names, checksHost)
    }

    func answer(method: String, path: String, host: String?) -> MonitorResponse {
        guard ["GET", "HEAD"].contains(method) else {
            return MonitorResponse(405, "only GET and HEAD\n", [("Allow", "GET, HEAD")])
        }
        // A page of another site whose name leads here must not read what is here ("DNS rebinding").
        guard !checksHost || isLocal(host) else { return MonitorResponse(403, "ask for localhost or 127.0.0.1\n") }
        switch path {
        case "/metrics": return metrics()
        case "/healthz": return health(needsReady: false)
        case "/readyz": return health(needsReady: true)
        case "/status.json": return document()
        case "/": return page()
        default: return MonitorResponse(404, "there are /, /metrics, /healthz, /readyz and /status.json\n")
        }
    }

    private func isLocal(_ host: String?) -> Bool {
        let name = host?.split(separator: ":", omittingEmptySubsequences: false).first ?? ""
        return ["localhost", "127.0.0.1"].contains(name.lowercased())
    }

    /// Also without the daemon: a scrape that fails says less than `kvtcd_up 0`.
    private func metrics() -> MonitorResponse {
        MonitorResponse(
            200, Families.text(try? collector.answer().get(), names: names), type: Exposition.contentType)
    }

    private func health(needsReady: Bool) -> MonitorResponse {
        switch collector.answer() {
        case .failure(let failure): return MonitorResponse(503, "\(failure)\n")
        case .success(let report):
            guard needsReady, report.state != "ready" else { return MonitorResponse(200, "ok\n") }
            return MonitorResponse(503, "\(report.state)\(report.stateReason.map { ": \($0)" } ?? "")\n")
        }
    }

    private func document() -> MonitorResponse {
        switch collector.answer() {
        case .failure(let failure): return MonitorResponse(503, "\(failure)\n")
        case .success(var report):
            if !names { report.forgetNames() }
            return MonitorResponse(200, JSONReply(report).json, type: "application/json")
        }
    }

    private func page() -> MonitorResponse {
        // Everything is in the page; nothing else is loaded, framed or sent anywhere.
        let policy =
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
            + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return MonitorResponse(
            200, StatusPage.html, type: "text/html; charset=utf-8", [("Content-Security-Policy", policy)])
    }
}

extension StatusReport {
    /// Leaves out what tells users apart: loopback is open to every user of the machine.
    mutating func forgetNames() {
        tenants = []
        tenant = 0
        profileDirectory = nil
        refused.last = nil
        for index in sessions.indices {
            sessions[index].name = ""
            sessions[index].tenant = 0
        }
        for index in profiles.indices { profiles[index].file = nil }
        for index in restoreCosts.indices { restoreCosts[index].tenant = 0 }
    }
}
