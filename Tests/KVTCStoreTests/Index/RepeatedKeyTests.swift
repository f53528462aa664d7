import StoreSimulation
import TestSupport
import Testing

@testable import KVTCStore

/// A request may name a page twice.
@Suite struct RepeatedKeyTests {
    /// How a page comes from disk.
    enum Way: CaseIterable { case prefetch, borrow }

    private func put(_ store: Store, _ n: Int, after before: [StoreKey] = []) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes(), after: before[...])
    }

    /// The order in which pages leave RAM has each of them once. Asked for before anything goes along it, which would not end.
    private func checkOrder(_ store: Store) throws {
        let isLoop = store.index.withLock { index in
            (0..<8).contains { n in index.pages.find(key(n)).map { index.pages[$0].next == $0 } ?? false }
        }
        try #require(!isLoop)
        let pages = store.index.withLock { $0.inRAM }
        #expect(pages.count == store.statistics.ramPages && Set(pages).count == pages.count)
    }

    @Test(arguments: Way.allCases) func aPageThatIsBeforeItself(way: Way) throws {
        let store = try Store.open(.memory(MemoryDevice(), ram: 32 << 10))
        for n in 0..<4 { #expect(put(store, n) == .stored) }
        #expect(try store.evictToDisk((0..<3).map { key($0) }) == 3)
        // Whichever of the two is read first, as the readers go side by side.
        for order in [[1, 0], [0, 1], [3, 2, 1, 0]] {
            try store.evictToDisk((0..<3).map { key($0) })
            let use = store.use([key(0), key(0), key(1), key(1)])
            for index in order {
                switch way {
                case .prefetch: #expect(store.prefetch(index, of: use))
                case .borrow:
                    guard case .hit(let borrowed) = store.borrow(index, of: use) else {
                        Issue.record("page \(index / 2) is not there")
                        return
                    }
                    #expect(store.confirm(borrowed))
                }
                try checkOrder(store)
            }
        }
        #expect(store.survey([key(0), key(0)]).map(\.residence) == [.ram, .ram])
        try store.flush()
        for n in 0..<4 { #expect(store.bytes(key(n)) == page(n, bytes: 1000)) }
    }

    @Test func aPageThatIsPutBehindItself() throws {
        let store = try Store.open(.memory(MemoryDevice(), ram: 32 << 10))
        #expect(put(store, 0, after: [key(0), key(0)]) == .stored)
        #expect(put(store, 1, after: [key(0), key(1)]) == .stored)
        #expect(put(store, 1, after: [key(0), key(1)]) == .present)
        try checkOrder(store)
        #expect(store.release(store.lease([key(0), key(0)], until: .max)) && store.remove([key(0), key(0)]) == 1)
        try checkOrder(store)
    }
}
