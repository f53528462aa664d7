import StoreSimulation
import TestSupport
import Testing

@testable import KVTCStore

@Suite struct ExpiryHeapTests {
    /// Whatever is left out, each number comes up as early as its earliest item says, and in order.
    @Test func theEarliestItemsStay() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        var heap = ExpiryHeap()
        var earliest: [UInt32: UInt64] = [:]
        for _ in 0..<20_000 {
            let number = UInt32.random(in: 0..<300, using: &generator)
            let expires = UInt64.random(in: 1..<1_000_000, using: &generator)
            heap.push(expires, number)
            earliest[number] = min(earliest[number] ?? .max, expires)
        }
        #expect(heap.count <= 4096, "seed \(seed)")
        var (found, last): ([UInt32: UInt64], UInt64) = ([:], 0)
        while let item = heap.pop() {
            #expect(item.expires >= last, "seed \(seed)")
            last = item.expires
            if found[item.number] == nil { found[item.number] = item.expires }
        }
        #expect(found == earliest, "seed \(seed)")
    }

    /// Pages that come and go long before they expire leave nothing behind.
    @Test func itDoesNotGrowWithThePagesThatHaveGone() throws {
        let clock = TestClock()
        let store = try Store.open(.small(ram: 16 << 10, clock: clock))
        for n in 0..<12_000 {
            let attributes = PageAttributes(expires: store.seconds + 3000, ttl: 3000)
            #expect(store.put(key(n), bytes: [1, 2, 3], attributes: attributes) == .stored)
            if n % 2 == 0 { clock.advance(seconds: 1) }
        }
        #expect(store.index.withLock { $0.expiry.count } <= 4096)
        clock.advance(seconds: 3000)
        #expect(store.purgeExpired() == 32 && store.index.withLock { $0.expiry.count } == 0)
    }
}
