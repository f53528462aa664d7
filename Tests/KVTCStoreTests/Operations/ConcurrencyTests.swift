import Dispatch
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// Many threads at once. The number of operations is fixed, so the time is bounded.
@Suite struct ConcurrencyTests {
    private func size(_ n: Int) -> Int { 100 + n * 57 % 3000 }

    @Test(.timeLimit(.minutes(2)), arguments: [true, false])
    func putReadEvictRemove(withDisk: Bool) throws {
        let device = MemoryDevice()
        let configuration = withDisk ? StoreConfiguration.memory(device, ram: 12 << 10) : .small(ram: 12 << 10)
        let store = try Store.open(configuration)
        let budget = withDisk ? 64 << 10 : 0
        let wrong = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: 6) { thread in
            var generator = SeededGenerator(seed: UInt64(thread))
            for _ in 0..<1500 {
                let n = Int.random(in: 0..<40, using: &generator)
                switch Int.random(in: 0..<16, using: &generator) {
                case 0...4:
                    _ = store.put(key(n), bytes: page(n, bytes: size(n)), attributes: PageAttributes(priority: 100))
                case 5:
                    // Other bytes of the same key: a reader may see either, never a mixture.
                    _ = store.replace(
                        key(n), bytes: page(n + 1000, bytes: size(n)), attributes: PageAttributes(coded: true))
                case 6: store.remove(key(n))
                case 7: _ = try? store.evictToDisk([key(n)])
                case 8: _ = try? store.flush([key(n)])
                case 9: _ = store.prefetch(key(n))
                case 10:
                    let lease = store.lease([key(n)], until: .max)
                    _ = store.release(lease)
                case 11: store.update(key(n), priority: UInt8.random(in: 0...255, using: &generator))
                case 12:
                    if store.hold(key(n)) { store.unhold(key(n)) }
                default:
                    switch store.read(key(n), { PageBytes(array: Array($0)) }) {
                    case .hit(let bytes):
                        let right = bytes == page(n, bytes: size(n)) || bytes == page(n + 1000, bytes: size(n))
                        if !right { wrong.add(1, ordering: .relaxed) }
                    case .miss: break
                    case .corrupt: wrong.add(1, ordering: .relaxed)
                    }
                }
                let statistics = store.statistics
                if statistics.ramUsed > 12 << 10 || statistics.diskUsed > budget { wrong.add(1, ordering: .relaxed) }
            }
        }
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect(store.statistics.corrupt == 0 && store.statistics.ioErrors == 0 && store.statistics.state == .ready)
        // Nothing leaks: without pages every total is zero again.
        _ = store.removeAll(tenant: 7)
        let statistics = store.statistics
        #expect(statistics.ramUsed == 0 && statistics.pages == 0 && statistics.storedBytes == 0)
        #expect(statistics.rawPages == 0 && statistics.codedPages == 0 && statistics.diskPages == 0)
        #expect(statistics.ramPages == 0 && statistics.diskOnlyPages == 0 && statistics.dirtyPages == 0)
        guard withDisk else { return }
        try store.close()
        #expect(try Store.open(.memory(device)).statistics.pages == 0)
    }

    /// Eight threads put the same key; exactly one stores it.
    @Test(.timeLimit(.minutes(1))) func firstPutWins() throws {
        let store = try Store.open(.small())
        for n in 0..<50 {
            let stored = Atomic(-1)
            let count = Atomic(0)
            DispatchQueue.concurrentPerform(iterations: 8) { thread in
                let bytes = page(n * 8 + thread, bytes: 400)
                if store.put(key(n), bytes: bytes, attributes: PageAttributes()) == .stored {
                    stored.store(thread, ordering: .relaxed)
                    count.add(1, ordering: .relaxed)
                }
            }
            #expect(count.load(ordering: .relaxed) == 1)
            #expect(store.bytes(key(n)) == page(n * 8 + stored.load(ordering: .relaxed), bytes: 400))
        }
    }
}
