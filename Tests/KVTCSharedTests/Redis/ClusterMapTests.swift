import Testing

@testable import KVTCShared

@Suite struct ClusterMapTests {
    private let asked = RedisAddress.tcp(host: "kv", port: 7000)

    private func range(_ first: Int64, _ last: Int64, _ host: RESPValue, _ port: Int64) -> RESPValue {
        .array([
            .integer(first), .integer(last), .array([host, .integer(port), .bulk([1])]),
            .array([.bulk([2]), .integer(1)]),
        ])
    }

    /// The vector of CRC-16/XMODEM, and slots that a real server gives (CLUSTER KEYSLOT).
    @Test func slotsAreThoseOfTheServer() {
        #expect(HashSlot.checksum(Array("123456789".utf8)[...]) == 0x31C3)
        for (key, slot) in [("foo", 12_182), ("", 0), ("{foo}.bar", 12_182), ("x{foo}{bar}", 12_182)] {
            #expect(HashSlot.of(Array(key.utf8)) == slot, "\(key)")
        }
        #expect(HashSlot.of(Array("{}foo".utf8)) == Int(HashSlot.checksum(Array("{}foo".utf8)[...])) % 16_384)
    }

    @Test func readsWhatServersAnswer() throws {
        let answer = RESPValue.array([
            range(0, 99, .bulk(Array("10.0.0.1".utf8)), 7001), range(100, 100, .null, 7002),
            range(200, 16_383, .bulk([]), 7000),
            range(150, 160, .bulk(Array("fe80::1".utf8)), 7003), range(161, 170, .bulk(Array("?".utf8)), 7002),
        ])
        let map = try #require(ClusterMap(answer, asked: asked))
        #expect(map.masters.map(\.description) == ["10.0.0.1:7001", "kv:7002", "kv:7000", "[fe80::1]:7003"])
        #expect([0, 99, 100, 101, 150, 165, 200, 16_383].map { map[$0] } == [0, 0, 1, nil, 3, 1, 2, 2])
    }

    @Test func aSlotMoves() throws {
        var map = try #require(ClusterMap(.array([range(0, 16_383, .null, 7001)]), asked: asked))
        map.assign(5, .tcp(host: "new", port: 1))
        #expect([4, 5, 6].map { map[$0] } == [0, 1, 0])
    }

    @Test func refusesWhatIsNoMap() {
        let host = RESPValue.bulk(Array("a".utf8))
        for bad in [
            range(-1, 5, host, 1), range(5, 4, host, 1), range(0, 16_384, host, 1), range(0, 1, host, 0),
            range(0, 1, host, 65_536),
            range(0, 1, .bulk(Array("a b".utf8)), 1), range(0, 1, .integer(1), 1), .null, .array([]),
            .array([.integer(0), .integer(1)]),
        ] {
            #expect(ClusterMap(.array([bad]), asked: asked) == nil, "\(bad)")
        }
        #expect(ClusterMap(.error("ERR"), asked: asked) == nil)
    }

    @Test func redirects() throws {
        let moved = try #require(RedisRedirect("MOVED 3999 10.0.0.1:6381"))
        #expect((moved.kind, moved.slot, moved.host, moved.port) == (.moved, 3999, "10.0.0.1", 6381))
        #expect(RedisRedirect("ASK 0 :7000")?.host == nil)
        #expect(RedisRedirect("ASK 0 :7000")?.kind == .ask)
        #expect(RedisRedirect("MOVED 1 fe80::1:7000")?.host == "fe80::1")
        for bad in [
            "MOVED", "MOVED 1", "MOVED 16384 a:1", "MOVED -1 a:1", "MOVED 1 a", "MOVED 1 a:0", "MOVED 1 a:65536",
            "MOVED 1 a/b:1",
            "MOVED 1 a:1 x", "moved 1 a:1", "ERR MOVED 1 a:1",
        ] {
            #expect(RedisRedirect(bad) == nil, "\(bad)")
        }
    }
}
