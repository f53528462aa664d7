import Glibc
import KVTCMonitor
import KVTCProtocol
import KVTCSystem
import Synchronization
import TestSupport
import Testing

/// Over real sockets, as a scraper or a browser would ask.
@Suite struct MonitorServerTests {
    private final class Daemon: Sendable {
        let report = Mutex<Result<StatusReport, MonitorError>>(.success(FamiliesTests.report))
        let asked = Atomic(0)

        func answer() -> Result<StatusReport, MonitorError> {
            asked.add(1, ordering: .relaxed)
            return report.withLock { $0 }
        }
    }

    private func serve(_ address: String, names: Bool = false, _ daemon: Daemon = Daemon()) throws -> MonitorServer {
        try MonitorServer(at: MonitorAddress(address), names: names) { daemon.answer() }
    }

    /// Sends bytes and reads until the other side ends the connection.
    /// - Parameter isAll: whether the request ends with the sending side of its connection.
    private func exchange(_ request: String, at port: UInt16, isAll: Bool = false) throws -> String {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(connected == 0)
        return talk(descriptor, request, isAll: isAll)
    }

    private func talk(_ descriptor: Int32, _ request: String, isAll: Bool = false) -> String {
        let bytes = Array(request.utf8)
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { break }
            sent += count
        }
        if isAll { shutdown(descriptor, Int32(SHUT_WR)) }
        var (reply, buffer) = ([UInt8](), [UInt8](repeating: 0, count: 65536))
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { break }
            reply += buffer[..<count]
        }
        return String(decoding: reply, as: UTF8.self)
    }

    private func get(_ path: String, at port: UInt16, method: String = "GET", host: String = "localhost") throws
        -> String
    {
        try exchange("\(method) \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n", at: port)
    }

    @Test func everyPathAnswersAndHeadSendsNoBody() throws {
        let server = try serve("127.0.0.1:0")
        #expect(try get("/metrics", at: server.port).contains("\nkvtcd_up 1\n"))
        #expect(try get("/metrics", at: server.port).contains("Content-Type: text/plain; version=0.0.4"))
        let page = try get("/", at: server.port)
        #expect(page.contains("<!doctype html>") && page.contains("default-src 'none'"))
        #expect(!page.contains("http://") && !page.contains("https://"), "nothing is loaded from elsewhere")
        #expect(try get("/status.json", at: server.port).contains("\"uptime_s\":12.5"))
        #expect(try get("/nothing", at: server.port).hasPrefix("HTTP/1.1 404"))
        #expect(try get("/metrics", at: server.port, method: "DELETE").hasPrefix("HTTP/1.1 405"))
        let head = try get("/metrics", at: server.port, method: "HEAD")
        #expect(head.hasPrefix("HTTP/1.1 200") && !head.contains("kvtcd_up"))
        let post = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        #expect(try exchange(post, at: server.port).hasPrefix("HTTP/1.1 405"))
    }

    @Test func healthIsThatOfTheDaemon() throws {
        let daemon = Daemon()
        let server = try serve("127.0.0.1:0", daemon)
        #expect(try get("/healthz", at: server.port).hasPrefix("HTTP/1.1 200"))
        let degraded = try get("/readyz", at: server.port)
        #expect(degraded.hasPrefix("HTTP/1.1 503") && degraded.contains("degraded: the disk fails"))
        daemon.report.withLock { $0 = .failure(MonitorError("no daemon answers")) }
        // What was answered a moment ago still counts; another server has asked nothing yet.
        let other = try serve("127.0.0.1:0", daemon)
        for path in ["/healthz", "/readyz", "/status.json"] {
            let reply = try get(path, at: other.port)
            #expect(reply.hasPrefix("HTTP/1.1 503") && reply.contains("no daemon answers"))
        }
        #expect(try get("/metrics", at: other.port).hasSuffix("\nkvtcd_up 0\n"))
    }

    @Test func loopbackTellsNoNamesAndAnswersNoOtherSite() throws {
        let quiet = try serve("127.0.0.1:0")
        let document = try get("/status.json", at: quiet.port)
        #expect(!document.contains("secret chat") && !document.contains("4711"))
        #expect(try get("/metrics", at: quiet.port, host: "evil.example").hasPrefix("HTTP/1.1 403"))
        #expect(try exchange("GET /metrics HTTP/1.0\r\n\r\n", at: quiet.port).contains(" 403 "))
        #expect(try get("/metrics", at: quiet.port, host: "127.0.0.1:9464").hasPrefix("HTTP/1.1 200"))
        let open = try serve("127.0.0.1:0", names: true)
        #expect(try get("/status.json", at: open.port).contains("secret chat"))
    }

    @Test func oneAnswerServesAllWhoAskAtOnce() throws {
        let daemon = Daemon()
        let server = try serve("127.0.0.1:0", daemon)
        let start = MonotonicClock.nanoseconds
        for _ in 0..<20 { #expect(try get("/metrics", at: server.port).contains("kvtcd_up 1")) }
        let halves = Int((MonotonicClock.nanoseconds - start) / 500_000_000)
        #expect(daemon.asked.load(ordering: .relaxed) <= halves + 1)
    }

    @Test func hostileRequestsEndTheirConnectionAndNothingElse() throws {
        let server = try serve("127.0.0.1:0")
        let long = String(repeating: "x", count: 100_000)
        for request in [
            "GET /\(long) HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: \(long)\r\n\r\n",
            "\u{0}\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\nConnection: close\r\n\r\n",
        ] {
            let reply = try exchange(request, at: server.port, isAll: true)
            #expect(!reply.hasPrefix("HTTP/1.1 200"), "\(request.prefix(40))")
        }
        #expect(try get("/healthz", at: server.port).hasPrefix("HTTP/1.1 200"))
    }

    @Test func aUnixSocketIsServedAndGoesAwayAtTheEnd() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("http.sock")
        do {
            let server = try serve("unix:\(path)", names: true)
            #expect(server.port == 0)
            #expect { try serve("unix:\(path)") } throws: { "\($0)".contains("can't listen at unix:\(path)") }
            let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let connected = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            try #require(connected == 0)
            // No name of a host to check here: the socket's permissions say who may ask.
            let reply = talk(descriptor, "GET /status.json HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
            #expect(reply.hasPrefix("HTTP/1.1 200") && reply.contains("secret chat"))
            withExtendedLifetime(server) {}
        }
        #expect(access(path, F_OK) != 0)
    }

    @Test func aPortThatIsTakenIsSaidSo() throws {
        let server = try serve("127.0.0.1:0")
        #expect { try serve("127.0.0.1:\(server.port)") } throws: { "\($0)".contains("can't listen at 127.0.0.1:") }
        withExtendedLifetime(server) {}
    }
}
