import KVTCStore
import KVTCSystem
import TestSupport
import Testing

@testable import KVTCShared

/// Machines of a fleet on servers that fail at random: never another page, every outcome once, and all is well when they are.
@Suite struct FleetSoakTests {
    @Test(arguments: [false, true]) func noWrongByteAndNothingStuck(encrypts: Bool) throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        let servers = PlayedServers()
        let dice = Dice(seed: seed)
        servers.react { _, _ in
            let roll = dice.roll()
            switch roll {
            case 0..<60: return .answer
            case 60..<70: return .damage
            case 70..<75: return .silence
            case 75..<80: return .loseAnswer
            case 80..<83: return .hold
            default: return .fail(RedisFault.allCases[roll % RedisFault.allCases.count])
            }
        }
        let machines = try (0..<2).map { _ in
            try Machine(servers) {
                $0.encrypts = encrypts
                $0.behindMilliseconds = 5
                ($0.lookupMilliseconds, $0.pullMilliseconds, $0.absentSeconds) = (1, 3, 0)
            }
        }
        // Two users with the same pages' names: number 1 is "tenant 1" on both machines.
        let keys = (0..<60).map { key($0 / 2, tenant: UInt32($0 % 2)) }
        @Sendable func page(_ index: Int) -> PlayedPage {
            PlayedPage(number: index, bytes: 50 + index * 20, ttl: UInt32(index % 3))
        }
        let finished = Monitor(0)
        for (number, machine) in machines.enumerated() {
            try Thread.start {
                var generator = SeededGenerator(seed: seed &+ UInt64(number))
                for _ in 0..<200 {
                    let indices = (0..<Int.random(in: 1...20, using: &generator)).map { _ in
                        Int.random(in: 0..<keys.count, using: &generator)
                    }
                    let chosen = indices.map { keys[$0] }
                    switch Int.random(in: 0..<8, using: &generator) {
                    case 0...2: machine.push(Dictionary(indices.map { (keys[$0], page($0)) }) { $1 })
                    case 3: machine.tier.remove(chosen)
                    case 4: servers.release()
                    case 5:
                        for (index, found) in zip(indices, machine.tier.ask(chosen)) where found != nil {
                            #expect(found?.attributes == page(index).attributes, "seed \(seed)")
                        }
                    default:
                        for (index, outcome) in zip(indices, machine.fetch(chosen)) {
                            if let block = outcome.block { #expect(block == page(index).block, "seed \(seed)") }
                        }
                    }
                }
                finished.update { $0 += 1 }
            }.detach()
        }
        _ = finished.wait { $0 == machines.count ? true : nil }
        // All is well again: what is removed is gone, and what is offered is there.
        servers.react { _, _ in .answer }
        servers.release()
        for machine in machines {
            machine.tier.remove(keys)
            _ = machine.tier.behind.state.wait { $0.removing.isEmpty ? true : nil }
        }
        machines[0].push(Dictionary(uniqueKeysWithValues: keys.indices.map { (keys[$0], page($0)) }))
        var blocks: [[UInt8]?] = []
        repeat { blocks = machines[1].fetch(keys).map(\.block) } while blocks.contains(nil)
        #expect(blocks == keys.indices.map { page($0).block }, "seed \(seed)")
    }
}

/// Seeded numbers for many threads.
private final class Dice: Sendable {
    private let generator: Monitor<SeededGenerator>

    init(seed: UInt64) { generator = Monitor(SeededGenerator(seed: seed)) }

    /// 0 to 99.
    func roll() -> Int {
        generator.withLock { (generator: inout SeededGenerator) in Int.random(in: 0..<100, using: &generator) }
    }
}
