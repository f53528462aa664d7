import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// A store without a disk.
@Suite struct RAMTierTests {
    @Test func putReadReplaceRemove() throws {
        let store = try Store.open(.small())
        let attributes = PageAttributes(firstPosition: 64, tokens: 16, rawBytes: 1000)
        #expect(store.put(key(1), bytes: page(1, bytes: 1000), attributes: attributes) == .stored)
        #expect(store.bytes(key(1)) == page(1, bytes: 1000))
        #expect(store.attributes(key(1)) == attributes && store.length(key(1)) == 1000)
        #expect(store.residence(key(1)) == .ram)

        // The first one wins, whatever the bytes.
        #expect(store.put(key(1), bytes: page(2, bytes: 500), attributes: PageAttributes()) == .present)
        #expect(store.bytes(key(1)) == page(1, bytes: 1000))

        #expect(store.update(key(1), pinned: true, priority: 9))
        let coded = PageAttributes(firstPosition: 64, tokens: 16, rawBytes: 1000, coded: true)
        #expect(store.replace(key(1), bytes: page(3, bytes: 100), attributes: coded))
        #expect(store.bytes(key(1)) == page(3, bytes: 100))
        // What a user changed meanwhile is not undone by the coder.
        #expect(store.attributes(key(1))?.pinned == true && store.attributes(key(1))?.priority == 9)
        #expect(store.attributes(key(1))?.coded == true)
        #expect(!store.replace(key(2), bytes: page(3, bytes: 100), attributes: coded))

        #expect(store.remove(key(1)) && !store.remove(key(1)))
        #expect(store.outcome(key(1)) == .miss && store.residence(key(1)) == .absent)
        #expect(!store.update(key(1), pinned: false) && store.attributes(key(1)) == nil)
        let statistics = store.statistics
        #expect(statistics.pages == 0 && statistics.ramUsed == 0 && statistics.storedBytes == 0)
        #expect(statistics.present == 1 && statistics.stored == 1 && statistics.hits == 3 && statistics.misses == 1)
    }

    @Test func pagesRestThatNobodyUses() throws {
        let store = try Store.open(.small())
        for n in 0..<10 {
            _ = store.put(key(n), bytes: page(n, bytes: 400 + n), attributes: PageAttributes(tokens: UInt32(n)))
        }
        #expect(store.statistics.compactPages >= 7 && store.statistics.ramPages == 10)
        for n in 0..<10 {
            #expect(store.bytes(key(n)) == page(n, bytes: 400 + n) && store.attributes(key(n))?.tokens == UInt32(n))
        }
        #expect(store.statistics.compactPages >= 6 && store.statistics.hits == 10)
    }

    @Test func tenantsDoNotMeet() throws {
        let store = try Store.open(.small())
        _ = store.put(key(1, tenant: 1), bytes: page(1, bytes: 10), attributes: PageAttributes())
        _ = store.put(key(1, tenant: 2), bytes: page(2, bytes: 10), attributes: PageAttributes())
        #expect(store.bytes(key(1, tenant: 1)) == page(1, bytes: 10))
        #expect(store.outcome(key(1, tenant: 3)) == .miss)
        #expect(store.keys(tenant: 2) == [key(1, tenant: 2)])
        #expect(store.removeAll(tenant: 2) == 1 && store.bytes(key(1, tenant: 1)) != nil)
    }

    @Test func keysHaveThirtyTwoBytes() {
        #expect(StoreKey(tenant: 1, page: [UInt8](repeating: 1, count: 31)) == nil)
        #expect(StoreKey(tenant: 1, page: [UInt8](repeating: 1, count: 33)) == nil)
        let bytes = (0..<32).map { UInt8($0) }
        #expect(StoreKey(tenant: 1, page: bytes)?.page == bytes)
        #expect(StoreKey(tenant: 1, page: bytes)?.description == "1:0001020304050607")
    }

    @Test func sizesBeyondTheArenaAreRefused() throws {
        let store = try Store.open(.small())
        #expect(store.maxPageBytes == 16 << 10)
        #expect(store.put(key(1), bytes: page(1, bytes: (16 << 10) + 1), attributes: PageAttributes()) == .tooLarge)
        #expect(store.put(key(1), bytes: page(1, bytes: 0), attributes: PageAttributes()) == .tooLarge)
        #expect(store.put(key(1), bytes: page(1, bytes: 16 << 10), attributes: PageAttributes()) == .stored)
    }

    @Test func ramBudgetHoldsOverSeveralArenas() throws {
        var configuration = StoreConfiguration.small(ram: 10 << 10)
        configuration.arenaBytes = 4 << 10
        let store = try Store.open(configuration)
        for n in 0..<100 {
            #expect(store.put(key(n), bytes: page(n, bytes: 1 + n * 40), attributes: PageAttributes()) == .stored)
            #expect(store.statistics.ramUsed <= 10 << 10)
            #expect(store.bytes(key(n)) == page(n, bytes: 1 + n * 40))
        }
        #expect(store.statistics.dropped > 50)
    }

    @Test func flushWithoutDiskIsAnError() throws {
        let store = try Store.open(.small())
        #expect(throws: StoreError.noDiskTier) { try store.flush() }
    }

    @Test func budgetsThatMakeNoSenseAreRefused() {
        #expect(throws: StoreError.self) { try Store.open(.small(ram: 100)) }
        #expect(throws: StoreError.self) { try Store.open(.small("/nonexistent", disk: 100)) }
    }

    @Test func readerKeepsItsBytesWhenThePageGoes() throws {
        let store = try Store.open(.small())
        _ = store.put(key(1), bytes: page(1, bytes: 8 << 10), attributes: PageAttributes())
        let seen = store.read(key(1)) { bytes in
            store.remove(key(1))
            for n in 2..<20 { _ = store.put(key(n), bytes: page(n, bytes: 4 << 10), attributes: PageAttributes()) }
            return PageBytes(array: Array(bytes))
        }
        #expect(seen == .hit(page(1, bytes: 8 << 10)))
        #expect(store.statistics.ramUsed <= 16 << 10)
    }
}
