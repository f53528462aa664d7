import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// RAM of four pages of 4 KiB in front of a disk.
@Suite struct DiskTierTests {
    let directory: TemporaryDirectory
    let clock = TestClock()

    init() throws { directory = try TemporaryDirectory() }

    private func open(disk: Int = 64 << 10, segment: Int = 8 << 10) throws -> Store {
        try Store.open(.small(directory.file("store"), disk: disk, segment: segment, clock: clock))
    }

    @discardableResult
    private func put(_ store: Store, _ n: Int, _ attributes: PageAttributes = PageAttributes()) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: 4000), attributes: attributes)
    }

    private func present(_ store: Store) -> [Int] { (0..<100).filter { store.residence(key($0)) != .absent } }

    @Test func evictedPagesAreReadBack() throws {
        let store = try open()
        for n in 0..<8 { #expect(put(store, n) == .stored) }
        #expect(store.residence(key(0)) == .disk && store.residence(key(7)) == .ram)
        #expect(store.statistics.evictedToDisk == 4 && store.statistics.diskOnlyPages == 4)
        for n in 0..<8 { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        #expect(store.statistics.pages == 8 && store.statistics.dropped == 0)
    }

    @Test func readKeepsThePageInRAMWhenThatCostsNoWrite() throws {
        let store = try open()
        for n in 0..<4 { put(store, n) }
        try store.flush()
        put(store, 4)
        #expect(store.residence(key(0)) == .disk)
        #expect(store.bytes(key(0)) != nil && store.residence(key(0)) == .ram && store.residence(key(1)) == .disk)
        #expect(store.prefetch(key(1)) && store.residence(key(1)) == .ram)
        #expect(!store.prefetch(key(50)))
    }

    @Test func restartRecoversEverythingFlushed() throws {
        let attributes = PageAttributes(
            priority: 3, pinned: true, expires: clock.wall + 100, firstPosition: 5, tokens: 6, rawBytes: 7, coded: true)
        do {
            let store = try open()
            put(store, 0, attributes)
            for n in 1..<8 { put(store, n) }
            let flushed = try store.flush()
            #expect(flushed.pages == 4 && flushed.bytes == 16_000)
            #expect(try store.flush() == (0, 0))
        }
        let store = try open()
        let statistics = store.statistics
        #expect(statistics.recovered == 8 && statistics.pages == 8 && statistics.diskPages == 8)
        #expect(statistics.corrupt == 0 && statistics.storedBytes == 32_000 && statistics.ramUsed == 0)
        #expect(statistics.codedPages == 1 && statistics.diskUsed > 32_000 && statistics.segments >= 4)
        #expect(store.attributes(key(0)) == attributes)
        for n in 0..<8 { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        clock.advance(seconds: 100)
        #expect(store.outcome(key(0)) == .hit(4000) && store.update(key(0), pinned: false, expiry: .at(clock.wall)))
        #expect(store.outcome(key(0)) == .miss)
    }

    @Test func flushOfKeysWritesOnlyThose() throws {
        do {
            let store = try open()
            for n in 0..<4 { put(store, n) }
            #expect(try store.flush([key(1), key(3), key(30)]) == (2, 8000))
            #expect(store.statistics.dirtyPages == 2)
        }
        #expect(present(try open()) == [1, 3])
    }

    @Test func expiredPagesAreNotRecovered() throws {
        do {
            let store = try open()
            put(store, 0, PageAttributes(expires: clock.wall + 10))
            put(store, 1)
            try store.flush()
        }
        clock.advance(seconds: 10)
        let store = try open()
        #expect(present(store) == [1] && store.statistics.recovered == 1)
    }

    @Test func removedPagesDoNotComeBack() throws {
        do {
            let store = try open()
            for n in 0..<6 { put(store, n) }
            try store.flush()
            #expect(store.remove(key(0)))
            #expect(store.remove([key(5), key(4), key(44)]) == 2)
            // Removed and put again: the newer one counts.
            store.remove(key(1))
            #expect(store.put(key(1), bytes: page(77, bytes: 10), attributes: PageAttributes()) == .stored)
            try store.flush()
        }
        do {
            let store = try open()
            #expect(present(store) == [1, 2, 3])
            #expect(store.bytes(key(1)) == page(77, bytes: 10))
            #expect(store.removeAll(tenant: 7) == 3)
        }
        #expect(present(try open()) == [])
    }

    @Test func replacedPagesKeepTheNewBytes() throws {
        let coded = PageAttributes(coded: true)
        do {
            let store = try open()
            for n in 0..<8 { put(store, n) }
            #expect(store.residence(key(0)) == .disk)
            #expect(store.replace(key(0), bytes: page(90, bytes: 300), attributes: coded))
            #expect(store.replace(key(7), bytes: page(97, bytes: 300), attributes: coded))
            #expect(store.bytes(key(0)) == page(90, bytes: 300))
            try store.flush()
        }
        let store = try open()
        #expect(store.bytes(key(0)) == page(90, bytes: 300) && store.attributes(key(0))?.coded == true)
        #expect(store.bytes(key(7)) == page(97, bytes: 300) && store.statistics.pages == 8)
    }

    @Test func changedAttributesSurvive() throws {
        do {
            let store = try open()
            for n in 0..<2 { put(store, n) }
            try store.flush()
            #expect(store.update(key(0), pinned: true, priority: 1, expiry: .at(clock.wall + 50)))
            try store.flush()
        }
        let store = try open()
        let attributes = store.attributes(key(0))
        #expect(attributes?.pinned == true && attributes?.priority == 1 && attributes?.expires == clock.wall + 50)
        #expect(store.attributes(key(1))?.pinned == false)
    }

    @Test func evictToDiskOnDemand() throws {
        let store = try open()
        for n in 0..<4 { put(store, n) }
        #expect(try store.evictToDisk([key(2), key(20)]) == 1)
        #expect(store.residence(key(2)) == .disk && store.residence(key(0)) == .ram)
        #expect(try store.evictToDisk(untilFree: 12 << 10) == 2)
        #expect(store.statistics.ramUsed == 4096 && store.residence(key(3)) == .ram)
        #expect(try store.evictToDisk(untilFree: 1 << 40) == 1)
        #expect(store.statistics.ramUsed == 0 && present(store) == [0, 1, 2, 3])
    }

    @Test func oneProcessAtATime() throws {
        let path = directory.file("store")
        let store = try open()
        #expect(throws: StoreError.locked(path)) { try Store.open(.small(path)) }
        try store.close()
        let second = try Store.open(.small(path))
        #expect(second.statistics.pages == 0)
    }

    @Test func closedStoreStillReads() throws {
        let store = try open()
        for n in 0..<6 { put(store, n) }
        try store.flush()
        try store.close()
        try store.close()
        for n in 0..<6 { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        #expect(throws: StoreError.noDiskTier) { try store.flush() }
    }

    @Test func pagesLargerThanASegmentAreRefused() throws {
        let store = try open(disk: 16 << 10, segment: 1 << 20)
        #expect(store.maxPageBytes == 4096 - 64 - 128 - 256 - 128)
        #expect(put(store, 0) == .tooLarge)
        let largest = page(1, bytes: store.maxPageBytes)
        #expect(store.put(key(1), bytes: largest, attributes: PageAttributes()) == .stored)
        #expect(try store.evictToDisk([key(1)]) == 1 && store.bytes(key(1)) == largest)
    }
}
