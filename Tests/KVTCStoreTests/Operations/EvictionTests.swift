import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Who leaves RAM first. Four pages of 4 KiB fill it.
@Suite struct EvictionTests {
    let clock = TestClock()

    private func full(_ attributes: [PageAttributes] = .init(repeating: .init(), count: 4)) throws -> Store {
        let store = try Store.open(.small(clock: clock))
        for n in 0..<4 { #expect(put(store, n, attributes[n]) == .stored) }
        return store
    }

    private func put(_ store: Store, _ n: Int, _ attributes: PageAttributes = PageAttributes()) -> PutOutcome {
        store.put(key(n), bytes: page(n, bytes: 4096), attributes: attributes)
    }

    private func present(_ store: Store) -> [Int] { (0..<10).filter { store.residence(key($0)) != .absent } }

    @Test func leastRecentlyUsedGoesFirst() throws {
        let store = try full()
        _ = store.bytes(key(0))
        #expect(put(store, 4) == .stored)
        #expect(present(store) == [0, 2, 3, 4])
        // Offering a page again is a use; looking at it is not.
        #expect(put(store, 2) == .present)
        _ = store.residence(key(3))
        _ = store.attributes(key(3))
        #expect(put(store, 5) == .stored)
        #expect(present(store) == [0, 2, 4, 5])
        #expect(store.statistics.dropped == 2)
    }

    @Test func lowerPriorityGoesFirst() throws {
        let store = try full([3, 1, 2, 1].map { PageAttributes(priority: $0) })
        for (n, left) in [(4, [0, 2, 3, 4]), (5, [0, 2, 4, 5]), (6, [0, 4, 5, 6]), (7, [4, 5, 6, 7])] {
            #expect(put(store, n) == .stored)
            #expect(present(store) == left)
        }
        #expect(store.update(key(7), priority: 1))
        #expect(put(store, 8) == .stored && present(store) == [4, 5, 6, 8])
    }

    @Test func pinnedPagesStay() throws {
        let store = try full([true, false, true, true].map { PageAttributes(pinned: $0) })
        #expect(put(store, 4) == .stored)
        #expect(present(store) == [0, 2, 3, 4])
        #expect(store.update(key(4), pinned: true))
        #expect(put(store, 5) == .full)
        #expect(store.statistics.full == 1)
        #expect(store.update(key(2), pinned: false))
        #expect(put(store, 5) == .stored)
        #expect(present(store) == [0, 3, 4, 5])
    }

    @Test func leasedPagesStayUntilReleasedOrOverdue() throws {
        let store = try full()
        let all = store.lease((0..<4).map { key($0) }, until: clock.milliseconds + 10_000)
        #expect(all != 0 && store.leased(all, key(0)) && !store.leased(all, key(9)) && !store.leased(all &+ 1, key(0)))
        #expect(put(store, 4) == .full)
        #expect(store.release(all) && !store.release(all) && !store.leased(all, key(0)))
        #expect(put(store, 4) == .stored && present(store) == [1, 2, 3, 4])

        let short = store.lease((1..<5).map { key($0) }, until: clock.milliseconds + 10_000)
        clock.advance(seconds: 9)
        #expect(put(store, 5) == .full && store.leased(short, key(1)))
        clock.advance(seconds: 1)
        #expect(put(store, 5) == .stored && !store.leased(short, key(2)) && !store.release(short))
    }

    @Test func leasesCount() throws {
        let store = try full()
        let a = store.lease([key(0)], until: clock.milliseconds + 1000)
        let b = store.lease([key(0), key(0), key(7)], until: clock.milliseconds + 1000)
        #expect(store.release(a))
        for n in 4..<7 { #expect(put(store, n) == .stored) }
        #expect(present(store) == [0, 4, 5, 6])
        #expect(store.release(b))
        #expect(put(store, 7) == .stored)
        // Released pages count as just used, so that a lease that ran out is not punished.
        #expect(present(store) == [0, 5, 6, 7])
    }

    @Test func leaseOfARemovedPageCoversNothing() throws {
        let store = try full()
        let lease = store.lease([key(0)], until: clock.milliseconds + 1000)
        #expect(store.remove(key(0)) && put(store, 0) == .stored)
        #expect(!store.leased(lease, key(0)))
        #expect(store.release(lease))
        for n in 4..<8 { #expect(put(store, n) == .stored) }
        #expect(present(store) == [4, 5, 6, 7])
    }

    @Test func heldPagesStay() throws {
        let store = try full()
        #expect(store.hold(key(0)) && store.hold(key(0)) && !store.hold(key(9)))
        #expect(store.unhold(key(0)) && !store.unhold(key(1)))
        for n in 4..<7 { #expect(put(store, n) == .stored) }
        #expect(present(store) == [0, 4, 5, 6])
        #expect(store.unhold(key(0)))
        #expect(!store.unhold(key(0)))
    }

    @Test func expiredPagesAreMissesAndGoFirst() throws {
        let at = clock.wall + 60
        let store = try full([nil, nil, at, nil].map { PageAttributes(expires: $0) })
        #expect(store.bytes(key(2)) != nil)
        clock.advance(seconds: 59)
        #expect(store.bytes(key(2)) != nil)
        clock.advance(seconds: 1)
        #expect(store.outcome(key(2)) == .miss && store.residence(key(2)) == .absent)
        #expect(!store.update(key(2), expiry: .never))
        #expect(put(store, 4) == .stored)
        #expect(present(store) == [0, 1, 3, 4])
        #expect(store.statistics.expired == 1 && store.statistics.dropped == 0)
    }

    @Test func expiryCanBeMovedAndTakenAway() throws {
        let store = try full(.init(repeating: PageAttributes(expires: clock.wall + 10), count: 4))
        #expect(store.update(key(0), expiry: .never))
        #expect(store.update(key(1), expiry: .at(clock.wall + 20)))
        #expect(store.update(key(2), expiry: .at(clock.wall + 5)))
        clock.advance(seconds: 5)
        #expect(store.purgeExpired() == 1 && present(store) == [0, 1, 3])
        clock.advance(seconds: 5)
        #expect(store.purgeExpired() == 1 && present(store) == [0, 1])
        clock.advance(seconds: 10)
        #expect(store.purgeExpired() == 1 && present(store) == [0])
        clock.advance(seconds: 1 << 40)
        #expect(store.purgeExpired() == 0 && present(store) == [0])
    }

    @Test func putOverAnExpiredPageStores() throws {
        let store = try full(.init(repeating: PageAttributes(expires: clock.wall + 10), count: 4))
        clock.advance(seconds: 10)
        #expect(store.put(key(0), bytes: page(70, bytes: 100), attributes: PageAttributes()) == .stored)
        #expect(store.bytes(key(0)) == page(70, bytes: 100))
    }

    @Test func leaseOutlastsExpiry() throws {
        let store = try full(.init(repeating: PageAttributes(expires: clock.wall + 10), count: 4))
        let lease = store.lease([key(0)], until: clock.milliseconds + 20_000)
        clock.advance(seconds: 15)
        #expect(store.purgeExpired() == 3)
        #expect(store.bytes(key(0)) == page(0, bytes: 4096))
        #expect(store.release(lease))
        #expect(store.outcome(key(0)) == .miss)
        #expect(store.purgeExpired() == 1)
    }
}
