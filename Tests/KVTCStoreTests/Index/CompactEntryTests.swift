import Foundation
import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Pages that nobody uses, of which there are many. KVTC_SCALE sets how many (default 20 000) and prints figures.
@Suite struct CompactEntryTests {
    private static let scale = ProcessInfo.processInfo.environment["KVTC_SCALE"].flatMap { Int($0) }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        let time = (ContinuousClock.now - start).components
        return Double(time.seconds) + Double(time.attoseconds) * 1e-18
    }

    private func residentBytes() -> Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        return (Int(text.split(separator: " ").dropFirst().first ?? "") ?? 0) * 4096
    }

    private func name(_ n: Int) -> StoreKey {
        StoreKey(tenant: UInt32(n % 3), words: SIMD4(UInt64(n), UInt64(n) &* 0x9E37_79B9_7F4A_7C15, 7, 9))
    }

    @Test func manyPagesTakeLittleMemoryAndStartSoon() throws {
        let count = Self.scale ?? 20_000
        let directory = try TemporaryDirectory()
        let configuration = StoreConfiguration(
            directory: directory.file("store"), ramBudget: 4 << 20, diskBudget: max(64 << 20, count * 400),
            segmentBytes: 4 << 20, arenaBytes: 4 << 20)
        let bytes = [UInt8](repeating: 1, count: 40)
        do {
            let store = try Store.open(configuration)
            let filling = try seconds {
                for n in 0..<count {
                    let attributes = PageAttributes(firstPosition: UInt32(n % 4096), tokens: 64, rawBytes: 1 << 20)
                    try #require(store.put(name(n), bytes: bytes, attributes: attributes) == .stored)
                }
                try store.flush()
            }
            try store.close()
            if Self.scale != nil { print("filled \(count) pages in \(filling) s") }
        }
        let before = residentBytes()
        var opened: Store?
        let opening = try seconds { opened = try Store.open(configuration) }
        let store = opened!
        let statistics = store.statistics
        #expect(statistics.recovered == UInt64(count) && statistics.compactPages == count)
        #expect(statistics.indexBytes <= 96 * count + (1 << 20), "96 bytes a page, and what an empty index takes")
        var missing = 0
        let looking = seconds {
            for n in stride(from: 0, to: count, by: max(1, count / 100_000))
            where store.residence(name(n)) != .disk { missing += 1 }
        }
        #expect(missing == 0)
        for n in stride(from: 0, to: count, by: count / 50) {
            #expect(store.outcome(name(n)) == .hit(40) && store.attributes(name(n))?.firstPosition == UInt32(n % 4096))
        }
        guard Self.scale != nil else { return }
        let lookups = (count + max(1, count / 100_000) - 1) / max(1, count / 100_000)
        print("opened in \(opening) s, index \(Double(statistics.indexBytes) / Double(count)) bytes a page")
        print("resident \(Double(residentBytes() - before) / Double(count)) bytes a page more than before opening")
        print("lookup \(looking / Double(lookups) * 1e9) ns")
    }

    /// Everything that can happen to a page on disk, against a dictionary.
    @Test(arguments: 1...8 as ClosedRange<UInt64>) func againstADictionary(seed: UInt64) throws {
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let clock = TestClock()
        let device = MemoryDevice()
        func open() throws -> Store {
            try Store.open(.memory(device, ram: 8 << 10, disk: 4 << 20, segment: 32 << 10, clock: clock))
        }
        var store = try open()
        var model: [Int: (seed: Int, attributes: PageAttributes)] = [:]
        func expire() {
            model = model.filter { $0.value.attributes.pinned || $0.value.attributes.expires ?? .max > clock.wall }
        }
        for step in 0..<3000 {
            let n = Int.random(in: 0..<400, using: &generator)
            switch Int.random(in: 0..<12, using: &generator) {
            case 0...3:
                var attributes = PageAttributes(priority: UInt8.random(in: 0...9, using: &generator))
                if Int.random(in: 0..<4, using: &generator) == 0 {
                    attributes.expires = clock.wall + UInt64.random(in: 1...400, using: &generator)
                }
                let outcome = store.put(key(n), bytes: page(step, bytes: 100 + n), attributes: attributes)
                #expect(outcome == (model[n] == nil ? .stored : .present))
                if model[n] == nil { model[n] = (step, attributes) }
            case 4:
                #expect(store.remove(key(n)) == (model[n] != nil))
                model[n] = nil
            case 5: _ = try store.evictToDisk([key(n)])
            case 6:
                let pinned = Bool.random(using: &generator)
                #expect(store.update(key(n), pinned: pinned) == (model[n] != nil))
                model[n]?.attributes.pinned = pinned
                expire()
            case 7:
                if store.hold(key(n)) { store.unhold(key(n)) }
                _ = store.release(store.lease([key(n), key((n + 1) % 400)], until: .max))
            case 8:
                clock.advance(seconds: 2)
                expire()
                if n % 8 == 0 { _ = store.purgeExpired() }
            case 9: if n % 20 == 0 { try store.flush() }
            case 10:
                let new = PageAttributes(coded: true)
                #expect(store.replace(key(n), bytes: page(-step, bytes: 60), attributes: new) == (model[n] != nil))
                if let old = model[n] {
                    model[n]!.attributes = old.attributes
                    model[n]!.attributes.coded = true
                    model[n]!.seed = -step
                }
            default:
                let bytes = model[n].map { page($0.seed, bytes: $0.seed < 0 ? 60 : 100 + n) }
                #expect(store.bytes(key(n)) == bytes && store.attributes(key(n)) == model[n]?.attributes)
            }
            if step % 1000 == 999 {
                try store.flush()
                try store.close()
                store = try open()
            }
            if step % 100 == 0 {
                _ = store.purgeExpired()
                let statistics = store.statistics
                #expect(statistics.pages == model.count && statistics.rawBytes == 0)
                #expect(statistics.codedPages == model.values.count { $0.attributes.coded })
                #expect(Set(store.keys(tenant: 7)) == Set(model.keys.map { key($0) }))
            }
        }
        #expect(store.statistics.corrupt == 0 && store.statistics.dropped == 0)
        _ = store.removeAll(tenant: 7)
        #expect(store.statistics.pages == 0 && store.statistics.compactPages == 0 && store.statistics.storedBytes == 0)
    }
}
