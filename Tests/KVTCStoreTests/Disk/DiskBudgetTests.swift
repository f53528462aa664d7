import Foundation
import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// What happens when the disk budget is used up.
@Suite struct DiskBudgetTests {
    let directory: TemporaryDirectory
    let clock = TestClock()

    init() throws { directory = try TemporaryDirectory() }

    private func open(disk: Int = 64 << 10) throws -> Store {
        try Store.open(.small(directory.file("store"), disk: disk, clock: clock))
    }

    private func put(_ store: Store, _ n: Int, _ attributes: PageAttributes = PageAttributes()) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: 4000), attributes: attributes)
    }

    private func present(_ store: Store) -> Set<Int> { Set((0..<300).filter { store.residence(key($0)) != .absent }) }

    /// Bytes of all files of the directory, as the file system sees them.
    private func bytesOnDisk() throws -> Int {
        let path = directory.file("store")
        return try FileManager.default.contentsOfDirectory(atPath: path).reduce(0) { sum, name in
            let attributes = try FileManager.default.attributesOfItem(atPath: path + "/" + name)
            return sum + (attributes[.size] as! Int)
        }
    }

    @Test func oldestPagesAreDroppedAndTheBudgetHolds() throws {
        let store = try open()
        for n in 0..<200 {
            #expect(put(store, n) == .stored)
            #expect(store.statistics.diskUsed <= 64 << 10)
            #expect(try bytesOnDisk() == store.statistics.diskUsed)
            if n % 20 == 19 { try store.flush() }
        }
        let left = present(store)
        #expect(left == Set(200 - left.count..<200) && left.count >= 11)
        #expect(store.statistics.dropped == UInt64(200 - left.count))
        for n in left { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
    }

    @Test func protectedPagesAreCarriedOver() throws {
        let store = try open()
        #expect(put(store, 0, PageAttributes(pinned: true)) == .stored)
        #expect(put(store, 1) == .stored && put(store, 2) == .stored)
        let lease = store.lease([key(1)], until: clock.milliseconds + 1000)
        #expect(store.hold(key(2)))
        #expect(try store.evictToDisk((0..<3).map { key($0) }) == 3)
        for n in 3..<100 { #expect(put(store, n) == .stored) }
        #expect(present(store).isSuperset(of: [0, 1, 2]))
        #expect(store.statistics.reinserted > 0)
        for n in 0..<3 { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        #expect(store.release(lease))
        for n in 100..<200 { #expect(put(store, n) == .stored) }
        #expect(present(store).isDisjoint(with: [1]) && present(store).isSuperset(of: [0, 2]))
        try store.flush()
        try store.close()
        let again = try open()
        #expect(again.bytes(key(0)) == page(0, bytes: 4000))
    }

    @Test func pagesInUseAreCarriedOver() throws {
        let store = try Store.open(.small(directory.file("store"), ram: 4096, clock: clock))
        for n in 0..<200 {
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
            // Page 0 is read again and again, page 1 never.
            if n > 4 { #expect(store.bytes(key(0)) == page(0, bytes: 1000)) }
        }
        #expect(store.residence(key(0)) != .absent && store.residence(key(1)) == .absent)
    }

    /// More RAM than disk: of what does not fit, the pages used last are on disk, and those of a higher priority before them.
    @Test(arguments: [false, true]) func aFlushOfTooMuchKeepsWhatIsMostWorth(isOften: Bool) throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, ram: 160 << 10, disk: 64 << 10))
        for n in 0..<30 {
            let attributes = PageAttributes(priority: n == 3 ? 200 : 128)
            #expect(store.put(key(n), bytes: page(n, bytes: 4000), attributes: attributes) == .stored)
            // As much as fits is on disk already, in the order in which it came.
            if isOften, n == 11 { try store.flush() }
        }
        var left = 0
        #expect {
            try store.flush()
        } throws: { error in
            if case .overBudget(let pages, _)? = error as? StoreError { left = pages }
            return left > 0
        }
        let kept = 30 - left
        #expect(kept >= 11 && store.statistics.pages == 30 && store.statistics.diskUsed <= 64 << 10)
        let again = try Store.open(.memory(device.afterPowerCut(seed: 1), ram: 160 << 10))
        let there = (0..<30).filter { again.bytes(key($0)) == page($0, bytes: 4000) }
        #expect(Set(there).isSuperset(of: [3] + (31 - kept..<30)))
    }

    @Test func diskFullOfPinnedPagesRefusesMore() throws {
        let store = try open()
        let pinned = PageAttributes(pinned: true)
        let stored = (0..<40).prefix { put(store, $0, pinned) == .stored }.count
        #expect(stored > 10 && stored < 20)
        #expect(put(store, 50, pinned) == .full && put(store, 51) == .full)
        #expect(store.statistics.diskUsed <= 64 << 10)
        for n in 0..<stored { #expect(store.bytes(key(n)) == page(n, bytes: 4000)) }
        #expect(throws: StoreError.diskFull) { try store.flush() }
        #expect(store.statistics.dropped == 0)
        for n in 0..<stored { #expect(store.update(key(n), pinned: false)) }
        #expect(put(store, 50) == .stored)
        #expect(try bytesOnDisk() <= 64 << 10)
    }

    /// Room made for some pages costs others, which are in RAM, their copy on disk: those are written again. Few are pinned.
    @Test(arguments: 1...20 as ClosedRange<UInt64>) func aFlushFindsRoomForEveryPageInRAM(seed: UInt64) throws {
        print("budget seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, ram: 24 << 10, disk: 96 << 10, segment: 8 << 10))
        func pick() -> StoreKey {
            key(Int.random(in: 0..<120, using: &generator), tenant: UInt32.random(in: 7...9, using: &generator))
        }
        for step in 0..<3000 {
            let bytes = page(step, bytes: Int.random(in: 300...1000, using: &generator))
            switch Int.random(in: 0..<20, using: &generator) {
            case 0..<8:
                let pinned = step < 40 && step % 10 == 0
                _ = store.put(pick(), bytes: bytes, attributes: PageAttributes(pinned: pinned))
            case 8..<10: _ = store.replace(pick(), bytes: bytes, attributes: PageAttributes(coded: true))
            case 10..<18: _ = store.outcome(pick())
            case 18:
                let some = (0..<10).map { _ in pick() }
                #expect(throws: Never.self, "step \(step)") { try store.flush(some) }
            default: #expect(throws: Never.self, "step \(step)") { try store.flush() }
            }
        }
    }

    @Test func unprotectedPagesAreDroppedWhenTheDiskIsPinned() throws {
        let store = try open()
        for n in 0..<12 { #expect(put(store, n, PageAttributes(pinned: true)) == .stored) }
        for n in 12..<60 { #expect(put(store, n) == .stored) }
        #expect(present(store).isSuperset(of: 0..<12) && present(store).contains(59))
    }

    @Test func smallerBudgetIsReachedAtStart() throws {
        do {
            let store = try open(disk: 256 << 10)
            for n in 0..<40 { #expect(put(store, n) == .stored) }
            try store.flush()
            #expect(store.statistics.diskUsed > 150 << 10)
        }
        let store = try open()
        #expect(store.statistics.diskUsed <= 64 << 10 && store.statistics.pages >= 8)
        #expect(try bytesOnDisk() <= 64 << 10)
        #expect(store.bytes(key(39)) == page(39, bytes: 4000))
    }

    @Test func smallerBudgetIsReachedAfterAStop() throws {
        do {
            let store = try open(disk: 256 << 10)
            for n in 0..<40 { #expect(put(store, n, PageAttributes(pinned: n == 20)) == .stored) }
            try store.flush(order: .mostWorthFirst)
            try store.close()
            #expect(store.statistics.diskUsed > 150 << 10)
        }
        let store = try open()
        #expect(store.statistics.diskUsed <= 64 << 10 && store.statistics.pages >= 8)
        #expect(try bytesOnDisk() <= 64 << 10)
        // Those used last went first.
        #expect(store.bytes(key(39)) == page(39, bytes: 4000) && store.bytes(key(20)) == page(20, bytes: 4000))
    }

    @Test func manyRestartsDoNotPileUpSegments() throws {
        for n in 0..<60 {
            let store = try open()
            #expect(store.put(key(n), bytes: page(n, bytes: 100), attributes: PageAttributes()) == .stored)
            try store.flush()
            try store.close()
        }
        let store = try open()
        #expect(store.statistics.pages == 60 && store.statistics.diskUsed <= 64 << 10)
    }
}
