import Testing

@testable import KVTCSystem

@Suite struct LockRankTests {
    @Test func onlyLaterOnesAreTaken() {
        let (first, second, third) = (LockRank(3), LockRank(4), LockRank(62))
        #expect(!second.leave())
        #expect(first.enter() && !first.enter())
        #expect(third.enter() && !second.enter())
        #expect(first.leave() && !second.enter())
        #expect(third.leave() && second.enter() && second.leave())
    }

    /// What one thread has is nothing to another.
    @Test func eachThreadHasItsOwn() throws {
        let rank = LockRank(7)
        #expect(rank.enter())
        let found = Monitor<Bool?>(nil)
        let thread = try Thread.start(name: "ranks") { found.update { $0 = rank.enter() } }
        #expect(found.wait { $0 } == true)
        thread.join()
        #expect(rank.leave())
    }

    @Test func aMutexIsOneOfTheOrder() {
        let outer = RankedMutex(1, rank: LockRank(10))
        let inner = RankedMutex(2, rank: LockRank(11))
        let sum = outer.withLock { a in inner.withLock { b in a + b } }
        #expect(sum == 3)
        let monitor = Monitor(3, rank: LockRank(9))
        let other = monitor.withLock { c in outer.withLock { a in a + c } }
        #expect(other == 4)
        #expect(LockRank(0).enter() && LockRank(0).leave())
    }
}
