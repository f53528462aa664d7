import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Who gives way to whom. A page has 4 KiB, so that 64 KiB of RAM hold 16.
@Suite struct TenantTests {
    private let quiet: UInt32 = 1
    private let greedy: UInt32 = 2
    private let third: UInt32 = 3

    private func put(_ store: Store, _ tenant: UInt32, _ n: Int, pinned: Bool = false) -> PutOutcome {
        store.put(
            key(n, tenant: tenant), bytes: page(n + 1000 * Int(tenant), bytes: 4096),
            attributes: PageAttributes(pinned: pinned))
    }

    private func held(_ store: Store, _ tenant: UInt32) -> Int { store.keys(tenant: tenant).count }

    private func isIntact(_ store: Store, _ tenant: UInt32, _ n: Int) -> Bool {
        store.bytes(key(n, tenant: tenant)) == page(n + 1000 * Int(tenant), bytes: 4096)
    }

    @Test func aFloodEvictsItsOwnPagesOnceOthersAreBelowTheirShare() throws {
        let store = try Store.open(.small(ram: 64 << 10))
        for n in 0..<6 { #expect(put(store, quiet, n) == .stored) }
        for n in 0..<200 { #expect(put(store, greedy, n) == .stored) }
        #expect((0..<6).allSatisfy { isIntact(store, quiet, $0) })
        #expect(held(store, greedy) == 10)
        // The other way round: what is above its share gives way until both have half.
        for n in 6..<40 { #expect(put(store, quiet, n) == .stored) }
        #expect(held(store, quiet) == 8 && held(store, greedy) == 8)
        // A third one gets room at once, and from those that have more than a third.
        for n in 0..<30 { #expect(put(store, third, n) == .stored) }
        for tenant in [quiet, greedy, third] { #expect((5...6).contains(held(store, tenant))) }
        #expect(store.usage[third]?.dropped == UInt64(30 - held(store, third)))
    }

    @Test func aSoleTenantHasEverything() throws {
        let store = try Store.open(.small(ram: 64 << 10))
        for n in 0..<16 { #expect(put(store, greedy, n) == .stored) }
        #expect(held(store, greedy) == 16)
    }

    @Test func aFloodOfPinnedPagesStopsAtItself() throws {
        let store = try Store.open(.small(ram: 64 << 10))
        for n in 0..<4 { #expect(put(store, quiet, n) == .stored) }
        let outcomes = (0..<40).map { put(store, greedy, $0, pinned: true) }
        #expect(outcomes.count { $0 == .stored } == 12 && outcomes.last == .full)
        #expect((0..<4).allSatisfy { isIntact(store, quiet, $0) })
        // Pinned pages are not dropped, but neither does a third tenant pay for them.
        #expect(put(store, third, 0) == .full)
        #expect(held(store, quiet) == 4)
    }

    @Test func aFloodLeavesOthersOnDisk() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, ram: 64 << 10, disk: 512 << 10, segment: 32 << 10))
        for n in 0..<20 { #expect(put(store, quiet, n) == .stored) }
        try store.flush()
        // Twenty times the disk, and nobody reads the quiet tenant's pages meanwhile.
        for n in 0..<2500 { #expect(put(store, greedy, n) == .stored) }
        try store.flush()
        #expect((0..<20).allSatisfy { isIntact(store, quiet, $0) })
        #expect(store.usage[quiet]?.dropped == 0)
        #expect(store.statistics.diskUsed <= 512 << 10)
        let again = try Store.open(.memory(device.afterKill(), ram: 64 << 10, disk: 512 << 10, segment: 32 << 10))
        #expect((0..<20).allSatisfy { isIntact(again, quiet, $0) })
    }

    @Test func quotasBoundOneTenant() throws {
        var configuration = StoreConfiguration.memory(MemoryDevice(), ram: 64 << 10, disk: 1 << 20, segment: 32 << 10)
        configuration.ramPerTenant = 24 << 10
        configuration.diskPerTenant = 100 << 10
        let store = try Store.open(configuration)
        for n in 0..<100 {
            #expect(put(store, greedy, n) == .stored)
            let usage = try #require(store.usage[greedy])
            #expect(usage.ramBytes <= 24 << 10 && usage.diskBytes <= 100 << 10)
        }
        // The newest are there, the oldest made room for them, and nobody else was bothered.
        #expect(isIntact(store, greedy, 99) && store.residence(key(0, tenant: greedy)) == .absent)
        #expect(try #require(store.usage[greedy]).dropped > 50)
        for n in 0..<5 { #expect(put(store, quiet, n) == .stored) }
        #expect(held(store, quiet) == 5)
    }

    @Test func whatIsPinnedBeyondTheQuotaIsRefused() throws {
        var configuration = StoreConfiguration.small(ram: 64 << 10)
        configuration.ramPerTenant = 16 << 10
        let store = try Store.open(configuration)
        for n in 0..<4 { #expect(put(store, greedy, n, pinned: true) == .stored) }
        #expect(put(store, greedy, 4) == .full)
        #expect(put(store, quiet, 0) == .stored)
    }

    @Test func roomsThatWaitForTheirPagesCountTowardsTheQuota() throws {
        var configuration = StoreConfiguration.small(ram: 64 << 10)
        configuration.ramPerTenant = 16 << 10
        let store = try Store.open(configuration)
        func room(_ n: Int) -> PageRoom? { store.room(for: key(n, tenant: greedy), byteCount: 4096) }
        var rooms = (0..<4).compactMap(room)
        #expect(rooms.count == 4 && room(4) == nil && put(store, greedy, 5) == .full)
        #expect(put(store, quiet, 0) == .stored)
        // Let go, or a page of the index: counted once, no longer, and no less.
        rooms.removeLast()
        #expect(room(4) != nil)
        for (n, room) in rooms.enumerated() {
            let bytes = page(n, bytes: 4096).array
            let filled = room.filled { memory in
                memory.copyBytes(from: bytes)
                return checksum(UnsafeRawBufferPointer(memory))
            }
            #expect(store.put(filled, attributes: PageAttributes(pinned: true)) == .stored)
        }
        let last = room(4)
        #expect(last != nil && room(6) == nil)
    }

    @Test func usageFollowsThePages() throws {
        let store = try Store.open(.memory(MemoryDevice(), ram: 64 << 10, disk: 1 << 20, segment: 32 << 10))
        for n in 0..<4 { #expect(put(store, quiet, n) == .stored) }
        var usage = try #require(store.usage[quiet])
        #expect(usage.pages == 4 && usage.ramBytes == 16 << 10 && usage.diskBytes == 0 && usage.dirtyPages == 4)
        try store.flush()
        _ = try store.evictToDisk([key(0, tenant: quiet)])
        usage = try #require(store.usage[quiet])
        #expect(usage.ramBytes == 12 << 10 && usage.diskBytes > 16 << 10 && usage.dirtyPages == 0)
        #expect(store.removeAll(tenant: quiet) == 4)
        usage = try #require(store.usage[quiet])
        #expect(usage.pages == 0 && usage.ramBytes == 0 && usage.diskBytes == 0 && usage.storedBytes == 0)
    }
}
