import KVTCStore
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCShared

/// The tier on a real server.
@Suite struct FleetServerTests {
    private func machine(
        _ server: RedisServer, tenant: String = "a", _ change: (inout FleetSettings) -> Void = { _ in }
    ) throws -> Machine {
        try Machine(RedisClient(try server.settings), tenant: tenant, change)
    }

    @Test func aConversationGoesOnAtAnotherMachine() throws {
        let server = try RedisServer()
        let keys = (0..<300).map { key($0) }
        let pages = (0..<300).map {
            PlayedPage(number: $0, exactRows: $0 % 5, bytes: 3000 + $0, ttl: $0 % 2 == 0 ? 600 : 0)
        }
        do {
            let one = try machine(server)
            one.push(Dictionary(uniqueKeysWithValues: zip(keys, pages)))
            one.expect { $0.writtenPages == 300 }
        }
        let other = try machine(server) { $0.encrypts = true }
        let found = other.tier.ask(keys + [key(1000)])
        #expect(found.map { $0?.length } == pages.map(\.block.count) + [nil])
        #expect(zip(found, pages).allSatisfy { $0?.attributes == $1.attributes })
        #expect(other.fetch(keys).map(\.block) == pages.map(\.block))
        #expect(other.tier.statistics.servers.count == 1)
        // Others' machines find nothing.
        #expect(try machine(server, tenant: "b").tier.ask(keys).allSatisfy { $0 == nil })
        // What is offered again is there, except for what this machine has better.
        other.push(Dictionary(uniqueKeysWithValues: zip(keys, pages)))
        other.expect { $0.known == 300 }
        other.push([key(3): PlayedPage(number: 3, mode: .lossless, distortion: 0)])
        other.expect { $0.writtenPages == 1 }
        #expect(other.fetch([key(3)])[0].block == PlayedPage(number: 3, mode: .lossless, distortion: 0).block)
        other.tier.remove(keys)
        other.expect { $0.removed == 300 }
        #expect(try machine(server).fetch(keys).allSatisfy { $0.isAbsent })
    }

    @Test func aServerThatIsSilentOrKilledIsAMiss() throws {
        let server = try RedisServer()
        let machine = try machine(server) {
            ($0.lookupMilliseconds, $0.pullMilliseconds, $0.absentSeconds) = (50, 200, 0)
        }
        let keys = (0..<100).map { key($0) }
        machine.push(Dictionary(uniqueKeysWithValues: keys.indices.map { (keys[$0], PlayedPage(number: $0)) }))
        machine.expect { $0.writtenPages == 100 }
        server.freeze()
        #expect(machine.fetch(keys).allSatisfy { $0.isFault })
        // After a few tries it is left alone.
        repeat {
            #expect(machine.tier.ask(keys).allSatisfy { $0 == nil })
        } while machine.tier.statistics.faults["open"]! == 0
        server.thaw()
        // It comes back by itself.
        var blocks: [[UInt8]?] = []
        repeat { blocks = machine.fetch(keys).map(\.block) } while blocks.contains(nil)
        #expect(blocks == keys.indices.map { PlayedPage(number: $0).block })
        server.kill()
        #expect(machine.fetch(keys).allSatisfy { $0.isFault })
        let again = try RedisServer(in: server.directory)
        // Its memory is empty.
        var outcomes: [SharedOutcome] = []
        repeat { outcomes = machine.fetch(keys) } while outcomes.contains { $0.isFault }
        #expect(outcomes.allSatisfy { $0.isAbsent })
        machine.tier.offer(keys)
        machine.expect { $0.writtenPages == 200 }
        #expect(machine.fetch(keys).map(\.block) == blocks)
        again.kill()
    }

    @Test func aServerWithoutMemoryTakesNoPages() throws {
        let server = try RedisServer(["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"])
        let machine = try machine(server) { $0.absentSeconds = 0 }
        let keys = (0..<100).map { key($0) }
        machine.push(
            Dictionary(uniqueKeysWithValues: keys.indices.map { (keys[$0], PlayedPage(number: $0, bytes: 100_000)) }))
        machine.expect { $0.faults["full"]! > 0 }
        let blocks = machine.fetch(keys).map(\.block)
        #expect(blocks.contains { $0 != nil } && blocks.contains(nil))
        machine.tier.remove(keys)
        machine.expect { $0.removed == 100 }
        machine.push([key(200): PlayedPage(number: 200)])
        _ = machine.events.wait { $0.last?.contains("again") == true ? true : nil }
        var block: [UInt8]?
        repeat { block = machine.fetch([key(200)])[0].block } while block == nil
        #expect(block == PlayedPage(number: 200).block)
    }
}
