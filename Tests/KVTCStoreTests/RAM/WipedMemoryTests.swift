import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// Nothing of a page stays in memory once the page is gone from there.
@Suite struct WipedMemoryTests {
    private let keeper = TestKeeper()

    private func open(ram: Int = 16 << 10, clock: TestClock = TestClock(), _ device: MemoryDevice? = nil) throws
        -> Store
    {
        let configuration: StoreConfiguration =
            device.map { .memory($0, ram: ram, clock: clock) } ?? .small(ram: ram, clock: clock)
        return try Store.open(configuration.kept(by: keeper))
    }

    private func put(_ store: Store, _ n: Int, _ attributes: PageAttributes = PageAttributes()) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: 5000), attributes: attributes)
    }

    /// Whether any 16 bytes at the start of a unit of allocation of the page are in the memory.
    private func isIn(_ contents: [(name: String, bytes: [UInt8])], _ n: Int) -> Bool {
        let bytes = page(n, bytes: 5000).array
        let pieces = Set(stride(from: 0, to: bytes.count - 16, by: 512).map { Array(bytes[$0..<$0 + 16]) })
        return contents.contains { _, memory in
            stride(from: 0, to: memory.count - 16, by: 512).contains { pieces.contains(Array(memory[$0..<$0 + 16])) }
        }
    }

    private func isThere(_ n: Int) -> Bool { isIn(keeper.contents, n) }

    @Test func removedReplacedExpiredAndEvictedPagesLeaveNothing() throws {
        let clock = TestClock()
        let store = try open(ram: 64 << 10, clock: clock, MemoryDevice())
        for n in 0..<5 { #expect(put(store, n, PageAttributes(expires: n == 2 ? clock.wall + 5 : nil)) == .stored) }
        for n in 0..<5 { #expect(isThere(n)) }
        #expect(store.remove(key(0)))
        #expect(store.replace(key(1), bytes: page(101, bytes: 700), attributes: PageAttributes(coded: true)))
        clock.advance(seconds: 7)
        #expect(store.purgeExpired() == 1)
        #expect(try store.evictToDisk([key(3)]) == 1)
        for n in 0..<4 { #expect(!isThere(n), "page \(n)") }
        #expect(isThere(4) && store.bytes(key(1)) == page(101, bytes: 700))
    }

    @Test func aPageIsThereAsLongAsSomebodyReadsIt() throws {
        let store = try open()
        #expect(put(store, 0) == .stored)
        let outcome = store.read(key(0)) { bytes in
            #expect(store.remove(key(0)))
            return PageBytes(array: Array(bytes)) == page(0, bytes: 5000)
        }
        guard case .hit(true) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(!isThere(0))
    }

    /// The process dies after a page's bytes are in place and before the page counts: the next one finds no page there, and
    /// leaves nothing of it.
    @Test func whatADeadProcessDidNotPublishIsWiped() throws {
        let left = Mutex<[(name: String, bytes: [UInt8])]>([])
        var configuration = StoreConfiguration.small().kept(by: keeper)
        let isArmed = Atomic(false)
        configuration.ramStep = { [keeper] in
            if isArmed.exchange(false, ordering: .relaxed) { left.withLock { $0 = keeper.contents } }
        }
        let store = try Store.open(configuration)
        #expect(put(store, 0) == .stored)
        isArmed.store(true, ordering: .relaxed)
        #expect(put(store, 1) == .stored)
        let found = left.withLock { $0 }
        #expect(isIn(found, 0) && isIn(found, 1))
        let next = TestKeeper(found)
        let again = try Store.open(StoreConfiguration.small().kept(by: next))
        #expect(again.bytes(key(0)) == page(0, bytes: 5000) && again.residence(key(1)) == .absent)
        #expect(isIn(next.contents, 0) && !isIn(next.contents, 1))
    }
}
