import Glibc
import KVTCClient
import KVTCModel
import KVTCProtocol
import KVTCStore
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCDaemon

/// What a connection can make the daemon hold, and who may connect as whom.
struct LimitTests {
    private func code(_ body: () throws -> Void) -> ErrorCode? {
        do { try body() } catch ClientError.refused(let error) { return error.code } catch { return nil }
        return nil
    }

    @Test func arenasAreCountedHoweverSmall() throws {
        let daemon = try TestDaemon {
            $0.limits.arenasPerConnection = 2
            $0.limits.arenasPerUser = 3
        }
        defer { daemon.stop() }
        let first = try daemon.client()
        _ = try (first.makeArena(bytes: 1), first.makeArena(bytes: 1))
        #expect(code { _ = try first.makeArena(bytes: 1) } == .limitExceeded)
        let second = try daemon.client()
        _ = try second.makeArena(bytes: 1)
        #expect(code { _ = try second.makeArena(bytes: 1) } == .limitExceeded)
        first.close()
        // Given back once the daemon has noticed.
        let deadline = MonotonicClock.nanoseconds + 60_000_000_000
        while code({ _ = try second.makeArena(bytes: 1) }) != nil, MonotonicClock.nanoseconds < deadline {}
        #expect(code { _ = try second.makeArena(bytes: 1) } == .limitExceeded)
        try daemon.expectServing()
    }

    @Test(arguments: [(64, 16, 1), (1024, 400, 1), (65_536, 10_000, 256)])
    func someDescriptorsAreKeptBack(limit: Int, segments: Int, connections: Int) {
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        configuration.diskBudget = segments * configuration.segmentBytes
        let room = DescriptorRoom(configuration, limit: limit)
        #expect(room.connections >= connections && room.connections < room.withAdministrators)
        #expect(room.withAdministrators + room.arenas < limit)
        #expect(limit < 4 * segments || room.withAdministrators + room.arenas + segments < limit)
    }

    @Test func aContainerIsOneTenantAndNoAdministrator() throws {
        let directory = try TemporaryDirectory()
        func run(_ body: (TestDaemon) throws -> Void) throws {
            let daemon = try TestDaemon(directory: directory) {
                $0.containers = ["web": directory.file("web"), "batch": directory.file("batch")]
            }
            defer { daemon.stop() }
            try body(daemon)
        }
        func client(_ name: String) throws -> Client { try Client(socketPath: directory.file(name), name: "test") }
        let page = Pages.random(tokens: 16, seed: 1)
        func pull(_ name: String) throws -> [UInt8]? {
            let client = try client(name)
            let session = try Pages.open(client, policy: Policy(mode: .lossless))
            return try Pages.pull(client, session.number, [Pages.key(1)], capacity: page.count)[0]
        }
        try run { _ in
            let web = try client("web")
            let session = try Pages.open(web, policy: Policy(mode: .lossless))
            _ = try session.push([ClientPage(key: Pages.key(1), firstPosition: 0, bytes: page)])
            #expect(try pull("web") == page)
            #expect(try pull("batch") == nil)
            #expect(try pull("s") == nil)
            #expect(code { _ = try web.call(VerifyRequest()) } == .forbidden)
            #expect(code { _ = try client("batch").call(GetPolicyRequest(session: session.number)) } == .unknownSession)
        }
        // A restart finds it again under the name.
        try run { _ in
            let (web, batch) = try (pull("web"), pull("batch"))
            #expect(web == page && batch == nil)
        }
        #expect(access(directory.file("web"), F_OK) != 0)
    }

    @Test func aContainersNumberNeverChanges() {
        // The disk remembers pages under it.
        #expect(Tenants.tenant(ofContainer: "web") == 0x8FD9_BC91)
        #expect(Tenants.tenant(ofContainer: "") == 0x811C_9DC5)
    }

    @Test func containersThatCannotBeToldApartAreRefused() throws {
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        configuration.directory = nil
        try configuration.addContainer("web", socket: "/run/web/s", key: "containers.web")
        var numbers = [Tenants.tenant(ofContainer: "web"): "web"]
        var twin: (String, String)?
        while twin == nil {
            let name = "c\(numbers.count)"
            if let other = numbers.updateValue(name, forKey: Tenants.tenant(ofContainer: name)) { twin = (other, name) }
        }
        let (first, second) = try #require(twin)
        try configuration.addContainer(first, socket: "/run/first", key: "containers")
        for (name, path) in [
            (second, "/run/second"), ("batch", "/run/web/s"), ("batch", "run/batch"), ("batch", ""), ("", "/run/batch"),
            ("batch", "/" + String(repeating: "x", count: 107)), (String(repeating: "x", count: 65), "/run/batch"),
        ] {
            #expect(throws: ConfigurationError.self, "\(name) \(path)") {
                try configuration.addContainer(name, socket: path, key: "containers.\(name)")
            }
        }
        #expect(configuration.containers.count == 2)
        configuration.socketPath = "/run/web/s"
        #expect(configuration.check(isTrial: true).errors.map(\.key).contains("containers.web"))
    }

    @Test func sessionNumbersTellNothing() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let numbers = try (0..<20).map { _ in try Pages.open(client, policy: Policy(mode: .lossless)).number }
        #expect(zip(numbers, numbers.dropFirst()).contains { $1 < $0 }, "they do not grow")
    }

    @Test func jobsThatWaitCanBeForgotten() {
        let pool = WorkPool()
        for _ in 0..<3 { pool.submit(.background) { Issue.record("it was forgotten") } }
        let isDone = Monitor(false)
        pool.submit(.urgent) { isDone.update { $0 = true } }
        #expect(pool.discard(.background) == 3)
        #expect(pool.runNext() && isDone.withLock { $0 })
        #expect(!pool.runNext())
    }

    @Test func whoWaitsForAJobRunsItWhereNoThreadDoes() throws {
        let (lonely, busy) = (WorkPool(), try WorkPool(threads: 1))
        let done = Monitor(0)
        for pool in [lonely, busy] {
            for _ in 0..<2 { pool.submit(.background) { done.update { $0 += 1 } } }
        }
        #expect(lonely.runNextHere() && lonely.runNextHere() && !lonely.runNextHere())
        #expect(!busy.runNextHere())
        busy.stop()
        #expect(done.withLock { $0 } == 4)
    }
}
