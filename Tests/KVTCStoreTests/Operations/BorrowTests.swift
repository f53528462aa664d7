import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Pages that are used where they lie.
@Suite struct BorrowTests {
    private struct Refused: Error {}

    private func borrow(_ store: Store, _ key: StoreKey) -> BorrowedPage? {
        if case .hit(let page) = store.borrow(key) { page } else { nil }
    }

    @Test func aBorrowedPageOutlivesItsRemoval() throws {
        let store = try Store.open(.small())
        let bytes = page(0xB0, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        var held = borrow(store, key(1))
        #expect(held?.isConfirmed == false)
        #expect(store.remove(key(1)) && borrow(store, key(1)) == nil)
        // The room is taken until the page is given back: others must not get it.
        #expect(store.statistics.ramUsed > 0)
        for other in 2..<8 { _ = store.put(key(other), bytes: page(other, bytes: 3000), attributes: PageAttributes()) }
        #expect(held.map { store.confirm($0) } == true)
        #expect(held.map { Array($0.bytes) } == bytes.array)
        let before = store.statistics.ramUsed
        held = nil
        #expect(store.statistics.ramUsed < before)
    }

    @Test func aChecksumThatIsNotThePagesTakesItOut() throws {
        let keeper = TestKeeper()
        let store = try Store.open(.small().kept(by: keeper))
        let bytes = page(0xB1, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        let held = try #require(borrow(store, key(1)))
        #expect(keeper.flip(bytes, at: 1500))
        #expect(!store.confirm(held) && store.residence(key(1)) == .absent && store.statistics.corrupt == 1)
    }

    @Test func bytesGoneBadInRAMComeFromDiskTheSecondTime() throws {
        let keeper = TestKeeper()
        let store = try Store.open(.memory(MemoryDevice()).kept(by: keeper))
        let bytes = page(0xB2, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        #expect(try store.flush().pages == 1)
        let held = try #require(borrow(store, key(1)))
        #expect(keeper.flip(bytes, at: 2999))
        #expect(!store.confirm(held) && store.residence(key(1)) == .disk)
        let again = try #require(borrow(store, key(1)))
        #expect(again.isConfirmed && store.confirm(again) && Array(again.bytes) == bytes.array)
    }

    @Test func whatFailsToFillLeavesNothing() throws {
        let store = try Store.open(.small())
        #expect(throws: Refused.self) {
            try store.put(key(1), byteCount: 3000, attributes: PageAttributes()) { (_) throws(Refused) -> UInt64 in
                throw Refused()
            }
        }
        #expect(store.residence(key(1)) == .absent && store.statistics.ramUsed == 0)
        // A key that is there is not filled again.
        #expect(store.put(key(1), bytes: page(1, bytes: 100), attributes: PageAttributes()) == .stored)
        let outcome = try store.put(key(1), byteCount: 3000, attributes: PageAttributes()) {
            (_) throws(Refused) -> UInt64 in throw Refused()
        }
        #expect(outcome == .present)
    }

    @Test func roomsAreFilledUnseenAndTheFirstPageWins() throws {
        let store = try Store.open(.small())
        let pages = [page(0xB5, bytes: 3000), page(0xB6, bytes: 3000)]
        let filled = try pages.map { page in
            try #require(store.room(for: key(1), byteCount: 3000)).filled { room in
                page.array.withUnsafeBytes { room.copyMemory(from: $0) }
                return page.array.withUnsafeBytes { checksum($0) }
            }
        }
        #expect(store.residence(key(1)) == .absent && store.statistics.pages == 0)
        #expect(store.put(filled[0], attributes: PageAttributes()) == .stored)
        #expect(store.put(filled[1], attributes: PageAttributes()) == .present)
        let held = try #require(borrow(store, key(1)))
        #expect(store.confirm(held) && Array(held.bytes) == pages[0].array)
        #expect(store.room(for: key(1), byteCount: 3000) == nil && store.room(for: key(2), byteCount: 1 << 40) == nil)
        // What is let go of gives its room back.
        let used = store.statistics.ramUsed
        var room = store.room(for: key(2), byteCount: 3000)
        #expect(room != nil && store.statistics.ramUsed > used)
        room = nil
        #expect(store.statistics.ramUsed == used)
    }
}
