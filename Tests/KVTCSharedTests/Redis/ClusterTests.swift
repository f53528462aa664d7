import Foundation
import KVTCSystem
import Testing

@testable import KVTCShared

/// The client and a real cluster, in one test because to make one takes seconds.
@Suite struct ClusterTests {
    private static let keys = (0..<300).map { Array("page-\($0)".utf8) }
    private static let values = keys.map { [UInt8](repeating: 7, count: 1000) + $0 }

    @Test func everyKeyIsFoundWhereverItIs() throws {
        let cluster = try Cluster()
        let events = Events()
        let client = RedisClient(try cluster.settings, log: events.take)
        defer { client.close() }
        let (keys, values) = (ClusterTests.keys, ClusterTests.values)

        // Before the map is known, one server sends all of them on.
        #expect(client.ask(zip(keys, values).map { .set($0, $1) }).allSatisfy { $0 == .success(.simple("OK")) })
        #expect(client.ask(keys.map { .get($0) }) == values.map { .success(.bulk($0)) })
        #expect(events.wait("masters") != nil)
        let sizes = client.askMasters(RedisCommand("DBSIZE")).map { try? $0.result.get().integer ?? 0 }
        #expect(sizes.count == 3 && sizes.allSatisfy { $0! > 0 } && sizes.reduce(0) { $0 + $1! } == 300)
        #expect(Set(client.masters.map(\.description)) == Set(cluster.servers[..<3].map { "127.0.0.1:\($0.port)" }))

        try movingASlot(cluster, client)
        try losingAMaster(cluster, client, events)
    }

    /// While a slot moves its keys are in two places; when it has, the map is old.
    private func movingASlot(_ cluster: Cluster, _ client: RedisClient) throws {
        let slot = HashSlot.of(Array("{move}".utf8))
        let from = Cluster.slots.firstIndex { $0.contains(slot) }!
        let to = (from + 1) % 3
        let (old, new) = (Array("{move}old".utf8), Array("{move}new".utf8))
        #expect(client.ask(.set(old, [1])) == .success(.simple("OK")))
        let (source, target) = (cluster.controls[from], cluster.controls[to])
        try Cluster.tell(target, "CLUSTER", "SETSLOT", "\(slot)", "IMPORTING", cluster.identifiers[from])
        try Cluster.tell(source, "CLUSTER", "SETSLOT", "\(slot)", "MIGRATING", cluster.identifiers[to])
        // What is not there any more is at the other server, which takes it as an exception.
        #expect(client.ask(.set(new, [2])) == .success(.simple("OK")))
        #expect(client.ask([.get(old), .get(new)]) == [.success(.bulk([1])), .success(.bulk([2]))])
        #expect(try Cluster.tell(target, "CLUSTER", "COUNTKEYSINSLOT", "\(slot)") == .integer(1))
        try Cluster.tell(source, "MIGRATE", "127.0.0.1", "\(cluster.servers[to].port)", "{move}old", "0", "5000")
        #expect(client.ask(.get(old)) == .success(.bulk([1])))
        for control in [target, source] {
            try Cluster.tell(control, "CLUSTER", "SETSLOT", "\(slot)", "NODE", cluster.identifiers[to])
        }
        #expect(client.ask([.get(old), .get(new)]) == [.success(.bulk([1])), .success(.bulk([2]))])
        // From then on it is known where they are.
        let source0 = client.bytesOut(cluster.servers[from].port)
        #expect(client.ask(.get(old)) == .success(.bulk([1])))
        #expect(client.bytesOut(cluster.servers[from].port) == source0)
    }

    /// While its replica is not its successor yet, its keys are missed; the others are there, and none is ever wrong.
    private func losingAMaster(_ cluster: Cluster, _ client: RedisClient, _ events: Events) throws {
        let (keys, values) = (ClusterTests.keys, ClusterTests.values)
        #expect(try Cluster.tell(cluster.controls[0], "WAIT", "1", "10000") == .integer(1))
        let dead = cluster.servers[0]
        dead.kill()
        var (faults, hasAll) = (Set<RedisFault>(), false)
        let limit = MonotonicClock.after(30)
        while !hasAll, MonotonicClock.nanoseconds < limit {
            if !faults.isEmpty { _ = events.wait("127.0.0.1:\(cluster.servers[3].port)", seconds: 0.1) }
            let results = client.ask(keys.map { .get($0) }, seconds: 0.5)
            hasAll = true
            for (result, value) in zip(results, values) {
                switch result {
                case .success(let found): #expect(found == .bulk(value))
                case .failure(let fault):
                    faults.insert(fault)
                    hasAll = false
                }
            }
        }
        #expect(hasAll)
        #expect(!faults.isEmpty && faults.isSubset(of: [.unreachable, .open, .down, .timeout]), "\(faults)")
        #expect(client.masters.contains(.tcp(host: "127.0.0.1", port: cluster.servers[3].port)))
        #expect(!client.masters.contains(.tcp(host: "127.0.0.1", port: dead.port)))
        #expect(events.wait("left alone") != nil)
    }
}

extension RedisClient {
    fileprivate func bytesOut(_ port: UInt16) -> UInt64? {
        status().first { $0.address == .tcp(host: "127.0.0.1", port: port) }?.bytesOut
    }
}
