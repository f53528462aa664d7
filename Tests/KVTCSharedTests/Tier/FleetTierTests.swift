import KVTCStore
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCShared

@Suite struct FleetTierTests {
    private let servers = PlayedServers()

    @Test func whatOneMachineWritesAnotherFinds() throws {
        let (one, other) = (try Machine(servers, tenant: "a"), try Machine(servers, tenant: "a"))
        let page = PlayedPage(exactRows: 3, ttl: 60)
        one.push([key(1): page])
        one.expect { $0.writtenPages == 1 }
        // The user has another number there.
        let there = key(1, tenant: 2)
        var expected = page.attributes
        expected.expires = nil
        let found = SharedPage(attributes: expected, length: page.block.count)
        #expect(other.tier.ask([key(9, tenant: 2), there]) == [nil, found])
        let outcomes = other.fetch([there, key(9, tenant: 2)])
        guard case .hit(found, page.block) = outcomes[0] else {
            Issue.record("\(outcomes[0])")
            return
        }
        #expect(outcomes[1].isAbsent)
        // The page lives on from its use; the absence was known.
        servers.expect("PEXPIRE", 1)
        #expect(servers.count("GET") == 1)
        #expect(servers.state.withLock { Array($0.lifetimes.values) } == [60_000])
        let statistics = other.tier.statistics
        #expect((statistics.asked, statistics.hits, statistics.absent) == (2, 1, 1))
        #expect((statistics.fetchedPages, statistics.asks.count, statistics.fetches.count) == (1, 1, 1))
    }

    @Test func anotherTenantsAndFleetsPagesDoNotVerify() throws {
        let one = try Machine(servers, tenant: "a")
        one.push([key(1): PlayedPage()])
        one.expect { $0.writtenPages == 1 }
        let other = try FleetSecret(Seal.randomBytes(40))
        let strangers = [
            try Machine(servers, tenant: "b"),
            try Machine(servers, tenant: "a") { $0.secret = other },
            try Machine(servers, tenant: "a") { $0.prefix = "other" },
        ]
        for stranger in strangers {
            #expect(stranger.tier.ask([key(1)]) == [nil])
            // The value laid under the stranger's own name.
            let name = stranger.tier.names.pages([key(2)])[0].name
            servers.state.update { state in
                state.values[name] = state.values[one.tier.names.pages([key(1)])[0].name]!
            }
            #expect(stranger.fetch([key(2)])[0].isFault)
            #expect(stranger.tier.statistics.faults["corrupt"] == 1)
        }
        servers.expect("UNLINK", 3)
    }

    @Test func absencesCostNothingUntilThePageIsWritten() throws {
        let machine = try Machine(servers) { $0.absentSeconds = 3600 }
        let keys = (0..<1000).map { key($0) }
        #expect(machine.tier.ask(keys).allSatisfy { $0 == nil })
        #expect(servers.count("GETRANGE") == 1000)
        #expect(machine.tier.ask(keys).allSatisfy { $0 == nil })
        #expect(servers.count("GETRANGE") == 1000)
        #expect(machine.tier.statistics.knownAbsent == 1000)
        machine.push([key(7): PlayedPage()])
        machine.expect { $0.writtenPages == 1 }
        let pages = machine.tier.ask(keys)
        #expect(pages.indices.filter { pages[$0] != nil } == [7])
    }

    @Test func silenceIsAMissAndALateAnswerIsStillRemembered() throws {
        let machine = try Machine(servers) { ($0.lookupMilliseconds, $0.absentSeconds) = (1, 3600) }
        servers.react { _, _ in .hold }
        let keys = (0..<3).map { key($0) }
        #expect(machine.tier.ask(keys) == [nil, nil, nil])
        let statistics = machine.tier.statistics
        #expect(statistics.asked == 3 && statistics.absent == 0)
        servers.release()
        // Every question has come to an end, one way or the other.
        machine.expect { $0.absent + $0.faults["timeout"]! == 3 }
    }

    @Test func manyWantOnePageAndItIsBroughtOnce() throws {
        let machine = try Machine(servers)
        machine.push([key(1): PlayedPage()])
        machine.expect { $0.writtenPages == 1 }
        servers.react { name, _ in name == "GET" ? .hold : .answer }
        let outcomes = Monitor<[[UInt8]?]>([])
        for _ in 0..<20 {
            machine.tier.fetch([key(1), key(1)]) { _, outcome in outcomes.update { $0.append(outcome.block) } }
        }
        servers.expect("GET", 1)
        servers.release()
        let all = outcomes.wait { $0.count == 40 ? $0 : nil }!
        #expect(all.allSatisfy { $0 == PlayedPage().block })
        #expect(servers.count("GET") == 1)
    }

    @Test func damagedPagesAreMissesAndGo() throws {
        let machine = try Machine(servers)
        machine.push([key(1): PlayedPage(), key(2): PlayedPage(number: 2), key(3): PlayedPage(number: 3)])
        machine.expect { $0.writtenPages == 3 }
        let names = machine.tier.names.pages([key(1), key(2), key(3)]).map(\.name)
        servers.state.update { state in
            state.values[names[0]]![150] ^= 1
            state.values[names[1]]!.removeLast(10)
            state.values[names[2]]![4] = 9
        }
        #expect(machine.fetch([key(1), key(2), key(3)]).allSatisfy { $0.isFault })
        servers.expect("UNLINK", 2)
        let faults = machine.tier.statistics.faults
        #expect((faults["corrupt"], faults["truncated"], faults["newer"]) == (1, 1, 1))
        _ = servers.state.wait { $0.values.count == 1 ? true : nil }
        #expect(servers.state.withLock { Array($0.values.keys) } == [names[2]])
        // A later release's page is not written over either.
        machine.tier.offer([key(3)])
        machine.expect { $0.known == 1 }
        #expect(servers.count("SET") == 3)
    }

    @Test func aBlackHoleEndsEveryFetch() throws {
        let machine = try Machine(servers) { $0.pullMilliseconds = 1 }
        servers.react { _, _ in .silence }
        #expect(machine.fetch((0..<5000).map { key($0) }).allSatisfy { $0.isFault })
        // Those that waited for their turn were not tried one after another.
        #expect(servers.count("GET") < 5000)
    }

    @Test(arguments: [RedisFault.open, .unreachable, .loading, .denied]) func faultsAreMisses(fault: RedisFault) throws
    {
        let machine = try Machine(servers)
        servers.react { _, _ in .fail(fault) }
        let keys = (0..<500).map { key($0) }
        #expect(machine.tier.ask(keys).allSatisfy { $0 == nil })
        #expect(machine.fetch(keys).allSatisfy { $0.isFault })
        #expect(machine.tier.statistics.faults[fault.rawValue] == 1000)
        servers.react { _, _ in .answer }
        #expect(machine.fetch(keys).allSatisfy { $0.isAbsent })
    }

    @Test func closingTellsEveryOutcome() throws {
        let machine = try Machine(servers)
        servers.react { _, _ in .hold }
        let outcomes = Monitor(0)
        machine.tier.fetch((0..<300).map { key($0) }) { _, outcome in
            precondition(outcome.isFault)
            outcomes.update { $0 += 1 }
        }
        servers.expect("GET", 10)
        machine.push([key(1): PlayedPage()])
        machine.tier.remove([key(2)])
        machine.tier.close()
        #expect(outcomes.withLock { $0 } == 300)
        machine.tier.fetch([key(1)]) { _, _ in outcomes.update { $0 += 1 } }
        machine.tier.offer([key(1)])
        machine.tier.remove([key(1)])
        #expect(machine.tier.ask([key(5)]) == [nil])
        machine.tier.close()
        #expect(outcomes.wait { $0 == 301 ? true : nil } == true)
    }
}
