import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Bits that flip in RAM.
@Suite struct MemoryDamageTests {
    private let keeper = TestKeeper()

    @Test func flippedBitIsCorruptAndThePageGoes() throws {
        let store = try Store.open(.small().kept(by: keeper))
        let bytes = page(0xBAD1, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        #expect(keeper.flip(bytes, at: 2999))
        #expect(store.outcome(key(1)) == .corrupt && store.outcome(key(1)) == .miss)
        #expect(store.statistics.corrupt == 1 && store.statistics.pages == 0 && store.statistics.ramUsed == 0)
    }

    @Test func pageGoneBadInRAMIsNotWritten() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device).kept(by: keeper))
        let bytes = page(0xBAD2, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        #expect(store.put(key(2), bytes: page(2, bytes: 100), attributes: PageAttributes()) == .stored)
        #expect(keeper.flip(bytes, at: 0))
        #expect(try store.flush().pages == 1)
        #expect(store.statistics.corrupt == 1 && store.residence(key(1)) == .absent)
        try store.close()
        let again = try Store.open(.memory(device))
        #expect(again.statistics.pages == 1 && again.statistics.corrupt == 0)
    }

    @Test func arenasAreSealed() throws {
        let store = try Store.open(.small().kept(by: keeper))
        let bytes = page(0xBAD3, bytes: 1000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        #expect(!keeper.truncate(to: 0) && !keeper.truncate(to: 1 << 20))
        #expect(store.bytes(key(1)) == bytes)
    }
}
