import Foundation
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// Random operations on budgets far too small for them, with faults and power cuts: budgets hold, pinned pages stay.
@Suite struct BudgetSimulationTests {
    private let disk = 48 << 10
    private let ram = 8 << 10

    private func size(_ n: Int) -> Int { 100 + n * 131 % 2500 }

    private func open(_ device: MemoryDevice) throws -> Store {
        try Store.open(.memory(device, ram: ram, disk: disk, segment: 6 << 10))
    }

    private func checkBudgets(_ store: Store, _ device: MemoryDevice) {
        let statistics = store.statistics
        #expect(statistics.ramUsed <= ram && statistics.diskUsed <= disk && device.totalBytes <= disk)
    }

    @Test(arguments: 1...24 as ClosedRange<UInt64>) func budgetsHold(seed: UInt64) throws {
        print("budget seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        var device = MemoryDevice()
        var store = try open(device)
        /// Pinned pages; true once a flush has acknowledged page and pin.
        var pinned: [Int: Bool] = [:]
        for round in 0..<4 as Range<UInt64> {
            let faulty = round % 2 == 1
            let skippedAtStart = store.statistics.corrupt
            let faults = Mutex(SeededGenerator(seed: seed &* 733 &+ round))
            device.setFault { _, operation in
                guard faulty else { return nil }
                return faults.withLock { generator in
                    guard Int.random(in: 0..<10, using: &generator) == 0 else { return nil }
                    let code = Bool.random(using: &generator) ? ENOSPC : EIO
                    return operation == "pwrite" ? .partial(code) : .error(code)
                }
            }
            for _ in 0..<250 {
                let n = Int.random(in: 0..<80, using: &generator)
                switch Int.random(in: 0..<10, using: &generator) {
                case 0...5:
                    let pin = Int.random(in: 0..<12, using: &generator) == 0 && pinned.count < 8
                    let attributes = PageAttributes(priority: UInt8(n % 3), pinned: pin)
                    if store.put(key(n), bytes: page(n, bytes: size(n)), attributes: attributes) == .stored, pin {
                        pinned[n] = false
                    }
                case 6:
                    store.remove(key(n))
                    pinned[n] = nil
                case 7:
                    if (try? store.flush(pinned.keys.map { key($0) })) != nil {
                        for n in pinned.keys { pinned[n] = true }
                    }
                default:
                    if let bytes = store.bytes(key(n)) { #expect(bytes == page(n, bytes: size(n))) }
                }
                checkBudgets(store, device)
                for n in pinned.keys { #expect(store.residence(key(n)) != .absent, "pinned page \(n) is gone") }
            }
            device.setFault { _, _ in nil }
            for n in pinned.keys { #expect(store.bytes(key(n)) == page(n, bytes: size(n))) }
            #expect(store.statistics.corrupt == skippedAtStart)
            device = device.afterPowerCut(seed: seed &+ round)
            store = try open(device)
            checkBudgets(store, device)
            for (n, durable) in pinned where durable {
                #expect(store.bytes(key(n)) == page(n, bytes: size(n)), "pinned page \(n) was acknowledged")
            }
            pinned = pinned.filter(\.value)
            // Removals that were not flushed may have been undone; what came back pinned is to stay again.
            for n in 0..<80 where store.attributes(key(n))?.pinned == true { pinned[n] = pinned[n] ?? false }
        }
    }
}
