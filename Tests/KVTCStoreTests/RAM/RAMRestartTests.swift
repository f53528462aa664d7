import Foundation
import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// A new process that gets the arenas of the one before. Each store here is left as a kill leaves it: never closed.
@Suite struct RAMRestartTests {
    private let keeper = TestKeeper()
    private let clock = TestClock()

    private func open(ram: Int = 16 << 10, arena: Int = 256 << 20, _ device: MemoryDevice? = nil) throws -> Store {
        var configuration =
            device.map { StoreConfiguration.memory($0, ram: ram, clock: clock) } ?? .small(ram: ram, clock: clock)
        configuration.arenaBytes = arena
        return try Store.open(configuration.kept(by: keeper))
    }

    @discardableResult
    private func put(
        _ store: Store, _ n: Int, bytes: Int = 1000, _ attributes: PageAttributes = PageAttributes()
    ) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: bytes), attributes: attributes)
    }

    @Test func pagesAndAttributesAreThereAgain() throws {
        let attributes = PageAttributes(
            priority: 3, pinned: true, expires: clock.wall + 100, firstPosition: 5, tokens: 6, rawBytes: 7, coded: true)
        do {
            let store = try open()
            put(store, 0, attributes)
            for n in 1..<6 { put(store, n) }
            #expect(store.update(key(1), pinned: true, priority: 9, expiry: .at(clock.wall + 50)))
            #expect(store.replace(key(2), bytes: page(102, bytes: 300), attributes: PageAttributes(coded: true)))
            #expect(store.remove(key(3)))
            put(store, 3, bytes: 700)
            #expect(store.remove(key(4)))
            _ = store.lease([key(5)], until: .max)
        }
        for _ in 0..<3 {
            let store = try open()
            let statistics = store.statistics
            #expect(statistics.recovered == 5 && statistics.recoveredFromRAM == 5 && statistics.corrupt == 0)
            #expect(statistics.pages == 5 && statistics.ramPages == 5 && statistics.dirtyPages == 5)
            #expect(statistics.codedPages == 2 && statistics.storedBytes == 1000 + 1000 + 300 + 700 + 1000)
            #expect(store.attributes(key(0)) == attributes && store.bytes(key(0)) == page(0, bytes: 1000))
            #expect(store.attributes(key(1))?.pinned == true && store.attributes(key(1))?.priority == 9)
            #expect(store.attributes(key(1))?.expires == clock.wall + 50)
            #expect(store.bytes(key(2)) == page(102, bytes: 300) && store.attributes(key(2))?.coded == true)
            #expect(store.bytes(key(3)) == page(3, bytes: 700) && store.residence(key(4)) == .absent)
        }
        clock.advance(seconds: 60)
        // A pin comes before an expiry.
        #expect(try open().residence(key(1)) == .ram)
        #expect(try open().update(key(1), pinned: false) && open().residence(key(1)) == .absent)
        // No lease holds anything: all but the pinned page can be dropped.
        let store = try open()
        for n in 10..<40 { #expect(put(store, n, bytes: 2000) == .stored) }
        #expect(store.residence(key(5)) == .absent && store.residence(key(0)) == .ram)
    }

    @Test func roomIsUsedAgainAndNothingLeaks() throws {
        for round in 0..<20 {
            let store = try open(ram: 8 << 10, arena: 4 << 10)
            for n in 0..<12 { #expect(put(store, round * 12 + n, bytes: 700) == .stored) }
            #expect(store.statistics.ramUsed <= 8 << 10 && keeper.names.count == 2)
        }
        let store = try open(ram: 8 << 10, arena: 4 << 10)
        #expect(store.statistics.recoveredFromRAM == 8 && store.statistics.ramUsed == 8 << 10)
        _ = store.removeAll(tenant: 7)
        #expect(store.statistics.ramUsed == 0)
        #expect(try open(ram: 8 << 10, arena: 4 << 10).statistics.pages == 0)
    }

    @Test func theOrderOfUseSurvives() throws {
        do {
            let store = try open(ram: 4 << 10)
            for n in 0..<4 { put(store, n) }
            _ = store.bytes(key(0))
            _ = store.bytes(key(2))
        }
        let store = try open(ram: 4 << 10)
        put(store, 10)
        put(store, 11)
        #expect((0..<4).map { store.residence(key($0)) } == [.ram, .absent, .ram, .absent])
    }

    @Test func pagesInBothTiersKnowTheirPlaceOnDisk() throws {
        let device = MemoryDevice()
        do {
            let store = try open(device)
            for n in 0..<6 { put(store, n) }
            try store.flush()
            #expect(store.update(key(1), priority: 1))
            #expect(store.replace(key(2), bytes: page(102, bytes: 300), attributes: PageAttributes(coded: true)))
            #expect(store.remove(key(3)))
            put(store, 3, bytes: 800)
            #expect(store.remove(key(4)))
            put(store, 6)
        }
        let killed = device.afterKill()
        let store = try open(killed)
        let statistics = store.statistics
        #expect(statistics.pages == 6 && statistics.ramPages == 6 && statistics.corrupt == 0)
        #expect(statistics.diskPages == 3 && statistics.dirtyPages == 3 && statistics.compactPages >= 3)
        #expect(store.attributes(key(1))?.priority == 1)
        let calls = killed.calls
        #expect(try store.evictToDisk([key(0), key(5)]) == 2)
        #expect(killed.calls == calls, "they are on disk already")
        #expect(store.bytes(key(0)) == page(0, bytes: 1000) && store.bytes(key(5)) == page(5, bytes: 1000))
        #expect(try store.flush().pages == 3)
        // Without the arenas, as after a power cut, the disk alone has the same.
        let alone = try Store.open(.memory(killed.afterPowerCut(seed: 1)))
        for (n, bytes) in [(0, page(0, bytes: 1000)), (1, page(1, bytes: 1000)), (2, page(102, bytes: 300))] {
            #expect(alone.bytes(key(n)) == bytes)
        }
        #expect(alone.bytes(key(3)) == page(3, bytes: 800) && alone.residence(key(4)) == .absent)
        #expect(alone.attributes(key(1))?.priority == 1 && alone.attributes(key(2))?.coded == true)
    }

    @Test func pinsOfPagesOnDiskSurviveAKill() throws {
        let device = MemoryDevice()
        let store = try open(device)
        for n in 0..<3 { put(store, n) }
        #expect(try store.evictToDisk([key(0), key(1)]) == 2)
        #expect(
            store.update(key(0), pinned: true) && store.update(key(1), priority: 9)
                && store.update(key(2), pinned: true) && store.update(key(1), promised: true))
        let again = try Store.open(.memory(device.afterKill(), clock: clock).kept(by: keeper))
        #expect(again.attributes(key(0))?.pinned == true && again.attributes(key(1))?.priority == 9)
        #expect(again.attributes(key(1))?.promised == true)
        #expect(again.attributes(key(2))?.pinned == true && again.statistics.pages == 3)
    }

    /// The log ends with a record that does not know of it, and does not win.
    @Test func whatIsSaidInRAMIsDueAfterAKill() throws {
        let device = MemoryDevice()
        do {
            let store = try open(device)
            put(store, 0)
            try store.flush()
            #expect(store.update(key(0), priority: 9))
            try store.flush()
            #expect(store.update(key(0), promised: true))
        }
        let killed = device.afterKill()
        let store = try open(killed)
        #expect(store.attributes(key(0))?.promised == true)
        #expect(try store.evictToDisk([key(0)]) == 1)
        let again = try Store.open(.memory(killed.afterKill(), clock: clock))
        #expect(again.attributes(key(0))?.promised == true && again.attributes(key(0))?.priority == 9)
    }

    /// What is said of a page is not written, and stays due; the page leaves RAM all the same, and no byte of it is lost.
    @Test(arguments: [ENOSPC, EIO]) func aFailingDiskKeepsNoPageInRAMForWhatIsSaidOfIt(code: Int32) throws {
        let device = MemoryDevice()
        let store = try open(ram: 4 << 10, device)
        for n in 0..<4 { put(store, n) }
        try store.flush()
        for n in 0..<4 { #expect(store.update(key(n), pinned: n % 2 == 0, priority: UInt8(n))) }
        device.setFault { _, operation in operation == "pwrite" ? .error(code) : nil }
        #expect(put(store, 4) == .stored && put(store, 5) == .stored)
        device.setFault { _, _ in nil }
        for n in 0..<4 {
            #expect(store.bytes(key(n)) == page(n, bytes: 1000) && store.attributes(key(n))?.priority == UInt8(n))
        }
        try store.flush()
        let again = try Store.open(.memory(device.afterPowerCut(seed: 1), clock: clock))
        for n in 0..<4 { #expect(again.attributes(key(n)) == PageAttributes(priority: UInt8(n), pinned: n % 2 == 0)) }
    }

    /// Said of a page that was on disk already, and not flushed since.
    @Test(arguments: [true, false]) func whatIsSaidOfAPageLeavesRAMWithIt(isAsked: Bool) throws {
        let device = MemoryDevice()
        let store = try open(device)
        for n in 0..<3 { put(store, n) }
        try store.flush()
        #expect(
            store.update(key(0), priority: 9) && store.update(key(1), promised: true)
                && store.update(key(2), pinned: true))
        if isAsked {
            #expect(try store.evictToDisk((0..<3).map { key($0) }) == 3)
        } else {
            try store.evictToDisk(untilFree: .max)
        }
        #expect((0..<3).allSatisfy { store.residence(key($0)) == .disk })
        let again = try Store.open(.memory(device.afterKill(), clock: clock).kept(by: keeper))
        #expect(again.statistics.recoveredFromRAM == 0 && again.attributes(key(0))?.priority == 9)
        #expect(again.attributes(key(1))?.promised == true && again.attributes(key(2))?.pinned == true)
    }

    @Test(arguments: [(8 << 10, 4 << 10), (16 << 10, 2 << 10), (6 << 10, 4 << 10), (16 << 10, 16 << 10)])
    func anotherBudgetMovesThePages(ram: Int, arena: Int) throws {
        let device = MemoryDevice()
        do {
            let store = try open(ram: 16 << 10, arena: 4 << 10, device)
            for n in 0..<14 { put(store, n) }
        }
        let store = try open(ram: ram, arena: arena, device.afterKill())
        #expect(store.statistics.ramUsed <= ram && store.statistics.pages == 14 && store.statistics.dropped == 0)
        for n in 0..<14 { #expect(store.bytes(key(n)) == page(n, bytes: 1000)) }
        #expect(keeper.names.count <= ram / arena + 1)
        for n in 20..<60 { #expect(put(store, n) == .stored) }
        #expect(store.statistics.ramUsed <= ram)
    }

    @Test func withoutDiskASmallerBudgetKeepsTheNewest() throws {
        do {
            let store = try open(ram: 16 << 10, arena: 4 << 10)
            for n in 0..<14 { put(store, n) }
        }
        let store = try open(ram: 4 << 10, arena: 4 << 10)
        #expect(store.statistics.ramUsed <= 4 << 10 && store.statistics.pages >= 3)
        #expect(keeper.names.count == 1 && keeper.forgotten.count == 3)
    }
}
