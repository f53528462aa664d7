import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// What the store tells people of a page: where it is, and what leaves before it. Four pages of 4 KiB fill RAM.
@Suite struct StatesTests {
    private let clock = TestClock()

    @Test func placesAreThoseInWhichPagesThenLeave() throws {
        let store = try Store.open(.small(clock: clock))
        for (n, priority) in [(0, 3), (1, 1), (2, 2), (3, 1)] {
            let attributes = PageAttributes(priority: UInt8(priority))
            #expect(store.put(key(n), bytes: page(n, bytes: 4096), attributes: attributes) == .stored)
        }
        _ = store.lease([key(1)], until: clock.milliseconds + 1000)
        let states = store.states((0..<5).map { key($0) })
        #expect(states.map { $0?.before?.pages } == [2, 3, 1, 0, nil])
        #expect(states.map { $0?.before?.bytes } == [8192, 12288, 4096, 0, nil])
        #expect(states.map { $0?.leases } == [0, 1, 0, 0, nil])
        #expect(states[4] == nil && states[0]?.isInRAM == true && states[0]?.isOnDisk == false)
        // Asking is no use: the one that is next goes.
        #expect(store.put(key(4), bytes: page(4, bytes: 4096), attributes: PageAttributes()) == .stored)
        #expect(store.states([key(3)])[0] == nil)
    }

    @Test func pagesOnDiskKnowOlderFilesAndTheirEnd() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, ram: 64 << 10, disk: 1 << 20, segment: 16 << 10))
        for n in 0..<8 {
            let attributes = PageAttributes(expires: n == 0 ? store.seconds + 50 : nil)
            #expect(store.put(key(n), bytes: page(n, bytes: 4096), attributes: attributes) == .stored)
        }
        try store.evictToDisk((0..<8).map { key($0) })
        let states = store.states([key(0), key(7)])
        #expect(states.allSatisfy { $0?.isInRAM == false && $0?.isOnDisk == true && $0?.before == nil })
        #expect(states[0]?.olderSegments == 0 && (states[1]?.olderSegments ?? 0) >= 2)
        #expect(states[0].map { (49...50).contains($0.expiresIn ?? 0) } == true && states[1]?.expiresIn == nil)
    }
}
