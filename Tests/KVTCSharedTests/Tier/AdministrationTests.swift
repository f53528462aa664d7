import KVTCStore
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCShared

@Suite struct AdministrationTests {
    @Test func whatAFleetKeepsIsCountedAndRemoved() throws {
        let server = try RedisServer(["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"])
        let machine = try Machine(RedisClient(try server.settings))
        let other = try Machine(RedisClient(try server.settings)) { $0.prefix = "kvtc2" }
        let keys = (0..<3000).map { key($0) }
        machine.push(Dictionary(uniqueKeysWithValues: keys.map { ($0, PlayedPage(bytes: 100)) }))
        other.push(Dictionary(uniqueKeysWithValues: keys.prefix(10).map { ($0, PlayedPage(bytes: 100)) }))
        machine.expect { $0.writtenPages == 3000 }
        other.expect { $0.writtenPages == 10 }
        let pings = machine.tier.ping()
        #expect(pings.count == 1)
        #expect(try pings[0].result.get() > 0)
        let usage = machine.tier.usage()[0]
        #expect((usage.values, usage.fault, usage.policy) == (3000, nil, "allkeys-lru"))
        #expect(usage.mostBytes == 64 << 20 && usage.usedBytes > 0)
        #expect(usage.bytes == 3000 * UInt64(PlayedPage(bytes: 100).block.count + SharedValue.overhead))
        var (removed, place) = (UInt64(0), String?.none)
        repeat {
            let step = try machine.tier.drop(from: place)
            (removed, place) = (removed + step.removed, step.next)
        } while place != nil
        #expect(removed == 3000)
        #expect(machine.tier.usage()[0].values == 0)
        // Another fleet's are not touched.
        #expect(other.tier.usage()[0].values == 10)
        // A place that does not exist any more begins anew.
        #expect(try machine.tier.drop(from: "17 nowhere:1").next == nil)
        server.kill()
        #expect(throws: RedisFault.self) { try machine.tier.drop(from: nil) }
        #expect(machine.tier.usage()[0].fault != nil)
        #expect(machine.tier.ping().allSatisfy { (try? $0.result.get()) == nil })
    }
}
