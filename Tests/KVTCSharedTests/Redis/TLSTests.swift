import Foundation
import KVTCShared
import KVTCSystem
import TestSupport
import Testing

/// The client and a real server with TLS.
@Suite struct TLSTests {
    private static let get = RedisCommand.get([1])

    private static func settings(_ host: String, _ port: UInt16, _ files: TLSFiles, scheme: String = "rediss") throws
        -> RedisSettings
    {
        var settings = RedisSettings(url: try RedisURL("\(scheme)://\(host):\(port)"))
        settings.tls = files
        settings.connectMilliseconds = 10_000
        return settings
    }

    @Test func bothEndsProveWhoTheyAre() throws {
        let directory = try TemporaryDirectory()
        let certificates = try Certificates(in: directory)
        try certificates.make("server", for: "IP:127.0.0.1,DNS:localhost")
        try certificates.make("old", for: "IP:127.0.0.1", isExpired: true)
        try certificates.make("client", for: "DNS:kvtcd")
        let other = try Certificates(in: try TemporaryDirectory())
        let server = try RedisServer(
            certificates.arguments("server") + ["--bind", "127.0.0.1", "127.0.0.2"], onPort: "--tls-port", in: directory
        )
        let good = certificates.files("client")

        // By address, and by a name of which another address may be tried in vain first.
        for host in ["127.0.0.1", "localhost"] {
            let client = RedisClient(try TLSTests.settings(host, server.port, good))
            let values = (0..<40).map { [UInt8](repeating: $0, count: 100_000) }
            #expect(client.ask(values.map { .set([$0[0]], $0) }).allSatisfy { $0 == .success(.simple("OK")) })
            #expect(client.ask(values.map { .get([$0[0]]) }) == values.map { .success(.bulk($0)) })
        }

        func fault(_ host: String, _ files: TLSFiles, scheme: String = "rediss") throws -> (RedisFault?, String) {
            let client = RedisClient(try TLSTests.settings(host, server.port, files, scheme: scheme))
            guard case .failure(let fault) = client.ask(TLSTests.get) else { return (nil, "") }
            #expect(client.ask(TLSTests.get) == .failure(.open))
            return (fault, client.status().first?.lastFault?.reason ?? "")
        }
        func expect(_ found: (RedisFault?, String), _ reason: String) {
            #expect(found.0 == .tls && found.1.contains(reason), "\(found)")
        }
        expect(try fault("127.0.0.1", other.files(nil)), "self-signed certificate in certificate chain")
        expect(try fault("127.0.0.2", good), "IP address mismatch")
        // The reason may be lost when the server ends the connection with it.
        let unknown = try fault("127.0.0.1", certificates.files(nil))
        #expect(
            unknown.0 == .unreachable || (unknown.0 == .tls && unknown.1.contains("certificate required")), "\(unknown)"
        )
        expect(try fault("127.0.0.1", certificates.files("missing")), "missing.crt")
        let plain = try fault("127.0.0.1", good, scheme: "redis").0
        #expect(plain == .unreachable || plain == .malformed)

        let control = RedisClient(try server.settings)
        let renewed = [
            "CONFIG", "SET", "tls-cert-file", directory.file("old.crt"), "tls-key-file", directory.file("old.key"),
        ]
        #expect(control.ask(RedisCommand(renewed.map { Array($0.utf8) })) == .success(.simple("OK")))
        expect(try fault("127.0.0.1", good), "expired")
    }

    @Test func aServerWithoutTLSIsNotTalkedTo() throws {
        let server = try RedisServer(onPort: "--port")
        var settings = try TLSTests.settings("127.0.0.1", server.port, TLSFiles())
        // It waits for the end of a line.
        settings.connectMilliseconds = 300
        let client = RedisClient(settings)
        #expect(client.ask(TLSTests.get) == .failure(.tls))
    }
}
