import Foundation
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// Random operations against a model, on a disk that fails at a chosen call, with restarts in between.
@Suite struct SimulationTests {
    /// What must be true of a page.
    private struct Expected {
        /// Bytes that are right for the key: present ones and, as a replacement may be lost, older ones.
        var seeds: Set<Int>
        /// Acknowledged by a flush and not removed since.
        var durable = false
    }

    private struct Simulation {
        var generator: SeededGenerator
        var device = MemoryDevice()
        var store: Store
        var model: [Int: Expected] = [:]
        /// Removed for certain: the tombstone was durable, or the store still runs.
        var removed: Set<Int> = []
        /// Every seed a page ever had, removed ones included.
        var history: [Int: Set<Int>] = [:]
        var next = 1000
        let pages = 24

        init(seed: UInt64) throws {
            generator = SeededGenerator(seed: seed)
            // The disk is larger than everything that is ever written, so nothing may be dropped.
            store = try Store.open(.memory(device, disk: 8 << 20, segment: 16 << 10))
        }

        private func size(_ seed: Int) -> Int { 200 + seed * 37 % 3000 }

        mutating func run(steps: Int) throws {
            for _ in 0..<steps {
                let n = Int.random(in: 0..<pages, using: &generator)
                switch Int.random(in: 0..<12, using: &generator) {
                case 0...3:
                    next += 1
                    let outcome = store.put(
                        key(n), bytes: page(next, bytes: size(next)), attributes: PageAttributes())
                    if outcome == .stored {
                        #expect(model[n] == nil)
                        model[n] = Expected(seeds: [next])
                        history[n, default: []].insert(next)
                        removed.remove(n)
                    } else if outcome == .present {
                        #expect(model[n] != nil)
                    }
                case 4, 5:
                    next += 1
                    if store.replace(key(n), bytes: page(next, bytes: size(next)), attributes: PageAttributes()) {
                        model[n]?.seeds.insert(next)
                        history[n, default: []].insert(next)
                        #expect(model[n] != nil)
                    }
                case 6:
                    #expect(store.remove(key(n)) == (model[n] != nil))
                    model[n] = nil
                    removed.insert(n)
                case 7:
                    _ = store.update(key(n), pinned: Bool.random(using: &generator))
                case 8:
                    _ = try? store.evictToDisk([key(n)])
                case 9:
                    if (try? store.flush()) != nil {
                        for n in model.keys { model[n]!.durable = true }
                    }
                default:
                    check(n)
                }
            }
        }

        /// A running store has every page of the model, whatever its disk does.
        mutating func check(_ n: Int) {
            switch store.read(key(n), { PageBytes(array: Array($0)) }) {
            case .hit(let bytes):
                guard let expected = model[n] else {
                    Issue.record("page \(n) was never put or is removed")
                    return
                }
                #expect(expected.seeds.contains { bytes == page($0, bytes: size($0)) })
            case .miss:
                #expect(model[n] == nil || store.residence(key(n)) == .disk, "only a failing disk excuses a miss")
            case .corrupt: Issue.record("page \(n) is corrupt")
            }
        }

        /// Goes on with what a new process finds. Pages that were not durable may be gone, or not.
        mutating func restart(_ found: MemoryDevice, keeps: (Expected) -> Bool, removalsHold: Bool) throws {
            device = found
            store = try Store.open(.memory(device, disk: 8 << 20, segment: 16 << 10))
            for n in 0..<pages {
                switch store.read(key(n), { PageBytes(array: Array($0)) }) {
                case .hit(let bytes):
                    let seeds = (history[n] ?? []).filter { bytes == page($0, bytes: size($0)) }
                    #expect(seeds.count == 1, "page \(n) has bytes it never had")
                    // A removal that was not flushed may be undone by a power cut, also under a page put again since.
                    if let expected = model[n], expected.durable || removalsHold {
                        #expect(expected.seeds.isSuperset(of: seeds), "page \(n) has bytes that were removed")
                    } else if removalsHold {
                        #expect(!removed.contains(n), "page \(n) came back")
                    }
                    model[n] = Expected(seeds: seeds, durable: model[n]?.durable ?? false)
                case .miss:
                    if let expected = model[n] { #expect(!keeps(expected), "page \(n) is lost") }
                    model[n] = nil
                case .corrupt: Issue.record("page \(n) is corrupt")
                }
            }
            removed = []
        }
    }

    @Test(arguments: 1...12 as ClosedRange<UInt64>) func withoutFaults(seed: UInt64) throws {
        print("simulation seed \(seed)")
        var simulation = try Simulation(seed: seed)
        for round in 0..<6 {
            try simulation.run(steps: 120)
            if round % 2 == 0 {
                try simulation.restart(simulation.device.afterKill(), keeps: \.durable, removalsHold: true)
            } else {
                let cut = simulation.device.afterPowerCut(seed: seed &* 31 &+ UInt64(round))
                try simulation.restart(cut, keeps: \.durable, removalsHold: false)
            }
        }
    }

    /// Every call fails once: the first, the second, … until a run is clean.
    @Test(arguments: [Fault.error(EIO), .error(ENOSPC), .partial(ENOSPC), .partial(EIO)])
    func everyCallFailsOnce(fault: Fault) throws {
        let seed: UInt64 = 77
        print("simulation seed \(seed)")
        var clean = false
        var failing = 0
        while !clean {
            var simulation = try Simulation(seed: seed)
            let target = failing
            simulation.device.setFault { number, operation in
                guard number == target else { return nil }
                // Only writes can be partial.
                if case .partial = fault, operation != "pwrite" { return nil }
                return fault
            }
            try simulation.run(steps: 150)
            clean = simulation.device.calls <= failing
            simulation.device.setFault { _, _ in nil }
            for n in 0..<simulation.pages { simulation.check(n) }
            let cut = simulation.device.afterPowerCut(seed: UInt64(failing))
            try simulation.restart(cut, keeps: \.durable, removalsHold: false)
            failing += 1
        }
        #expect(failing > 50)
    }

    /// Calls fail at random, some for a while; the disk recovers in the end and everything is there.
    @Test(arguments: 1...12 as ClosedRange<UInt64>) func randomFaults(seed: UInt64) throws {
        print("simulation seed \(seed)")
        var simulation = try Simulation(seed: seed)
        for round in 0..<5 as Range<UInt64> {
            let faults = Mutex(SeededGenerator(seed: seed &* 1009 &+ round))
            simulation.device.setFault { _, operation in
                faults.withLock { generator in
                    guard Int.random(in: 0..<6, using: &generator) == 0 else { return nil }
                    switch Int.random(in: 0..<4, using: &generator) {
                    case 0 where operation == "pwrite": return .partial(ENOSPC)
                    case 1 where operation == "pwrite" || operation == "pread": return .short
                    case 2: return .error(ENOSPC)
                    default: return .error(EIO)
                    }
                }
            }
            try simulation.run(steps: 150)
            simulation.device.setFault { _, _ in nil }
            for n in 0..<simulation.pages { simulation.check(n) }
            if round % 2 == 0 {
                try simulation.restart(
                    simulation.device.afterPowerCut(seed: seed &+ round), keeps: \.durable, removalsHold: false)
            } else {
                // All is well again: a flush covers everything, removals included.
                try simulation.store.flush()
                try simulation.restart(
                    simulation.device.afterPowerCut(seed: seed &+ round), keeps: { _ in true }, removalsHold: true)
            }
        }
    }
}
