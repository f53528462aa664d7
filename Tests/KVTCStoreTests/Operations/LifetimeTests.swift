import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// How long pages live: from their last use, whatever the clocks do, and pins before all.
@Suite struct LifetimeTests {
    let clock = TestClock()
    let device = MemoryDevice()
    let keeper = TestKeeper()

    private func open(onDisk: Bool = true, _ device: MemoryDevice? = nil, _ keeper: TestKeeper? = nil) throws -> Store {
        var configuration = StoreConfiguration.memory(device ?? self.device, ram: 32 << 10, disk: 1 << 20, clock: clock)
        if !onDisk { configuration.directory = nil }
        return try Store.open(configuration.kept(by: keeper ?? self.keeper))
    }

    private func put(_ store: Store, _ n: Int, ttl: UInt32, pinned: Bool = false) {
        let attributes = PageAttributes(pinned: pinned, ttl: ttl)
        #expect(store.put(key(n), bytes: page(n, bytes: 900), attributes: attributes) == .stored)
    }

    private func isThere(_ store: Store, _ n: Int) -> Bool { store.residence(key(n)) != .absent }

    /// A use of a page of each kind.
    enum Use: CaseIterable { case read, borrow, prefetch, use, put, update, lease }

    private func use(_ store: Store, _ n: Int, _ use: Use) {
        switch use {
        case .read: #expect(store.bytes(key(n)) == page(n, bytes: 900))
        case .borrow:
            guard case .hit = store.borrow(key(n)) else {
                Issue.record("page \(n) is not there")
                return
            }
        case .prefetch: #expect(store.prefetch(key(n)))
        case .use: store.use([key(n)])
        case .put: #expect(store.put(key(n), bytes: page(n, bytes: 900), attributes: PageAttributes()) == .present)
        case .update: #expect(store.update(key(n), priority: 9))
        case .lease:
            store.use([key(n)])
            #expect(store.release(store.lease([key(n)], until: clock.milliseconds + 10)))
        }
    }

    /// Wherever in a second its life begins.
    @Test(arguments: Use.allCases, [false, true]) func noPageLivesShorterThanPromised(use: Use, isOnDisk: Bool) throws {
        let store = try open()
        clock.advance(milliseconds: 900)
        put(store, 0, ttl: 1)
        clock.advance(milliseconds: 999)
        for _ in 0..<5 {
            if isOnDisk { try store.evictToDisk([key(0)]) }
            #expect(isThere(store, 0))
            self.use(store, 0, use)
            clock.advance(milliseconds: 999)
            _ = store.purgeExpired()
        }
        #expect(isThere(store, 0))
        // The last use was 999 ms ago. Of a page that was on disk only a second is all that is known.
        clock.advance(milliseconds: isOnDisk ? 1001 : 1)
        #expect(!isThere(store, 0))
    }

    /// In RAM, on disk only, and with many others used in between so that entries are put down and taken up.
    @Test(arguments: Use.allCases, [false, true]) func everyUsePutsTheEndOff(use: Use, isOnDisk: Bool) throws {
        let store = try open()
        put(store, 0, ttl: 100)
        for n in 1..<8 { put(store, n, ttl: 5000) }
        for _ in 0..<8 {
            if isOnDisk { try store.evictToDisk([key(0)]) }
            clock.advance(seconds: 60)
            for n in 1..<8 { _ = store.outcome(key(n)) }
            _ = store.purgeExpired()
            #expect(isThere(store, 0))
            self.use(store, 0, use)
        }
        clock.advance(seconds: 99)
        _ = store.purgeExpired()
        #expect(isThere(store, 0))
        clock.advance(seconds: 1)
        #expect(!isThere(store, 0) && store.outcome(key(0)) == .miss)
        _ = store.purgeExpired()
        #expect(store.statistics.pages == 7)
    }

    @Test func aLookWithoutUseDoesNot() throws {
        let store = try open()
        put(store, 0, ttl: 100)
        clock.advance(seconds: 60)
        _ = (store.residence(key(0)), store.survey([key(0)]), store.attributes(key(0)), store.length(key(0)))
        clock.advance(seconds: 40)
        #expect(!isThere(store, 0))
    }

    @Test func anEndThatWasSetForAMomentStays() throws {
        let store = try open()
        put(store, 0, ttl: 100)
        #expect(store.update(key(0), expiry: .at(store.seconds + 10)))
        clock.advance(seconds: 9)
        #expect(store.bytes(key(0)) != nil)
        clock.advance(seconds: 1)
        #expect(store.bytes(key(0)) == nil)
    }

    @Test func aPageNeverLosesLifeToAnotherUser() throws {
        let store = try open()
        put(store, 0, ttl: 100)
        #expect(store.put(key(1), bytes: page(1, bytes: 900), attributes: PageAttributes()) == .stored)
        for n in 0..<2 { #expect(store.update(key(n), expiry: .afterAtLeast(10))) }
        clock.advance(seconds: 99)
        #expect(isThere(store, 0) && isThere(store, 1))
        #expect(store.update(key(0), expiry: .afterAtLeast(1000)))
        clock.advance(seconds: 999)
        #expect(isThere(store, 0) && isThere(store, 1))
        clock.advance(seconds: 1)
        #expect(!isThere(store, 0) && isThere(store, 1))
    }

    /// What a flush wrote outlives the process with the use before it; RAM that is kept knows the last one.
    @Test(arguments: [false, true]) func theLastUseOutlivesTheProcess(isOnDisk: Bool) throws {
        do {
            let store = try open()
            put(store, 0, ttl: 100)
            try store.flush()
            if isOnDisk { try store.evictToDisk([key(0)]) }
            clock.advance(seconds: 90)
            #expect(store.bytes(key(0)) != nil)
            if isOnDisk { try store.flush() }
        }
        clock.advance(seconds: 50)
        let again = try open(device.afterKill(), isOnDisk ? TestKeeper() : keeper)
        #expect(again.attributes(key(0))?.ttl == 100)
        #expect(again.bytes(key(0)) == page(0, bytes: 900))
        clock.advance(seconds: 99)
        #expect(isThere(again, 0))
        clock.advance(seconds: 1)
        #expect(!isThere(again, 0))
    }

    // MARK: - Clocks

    /// Setting the wall clock changes nothing of a store that is open.
    @Test(arguments: [0, 1, 999_000, 1_000_000 + 86_400, 4_000_000_000, UInt64.max] as [UInt64])
    func settingTheClockChangesNothing(wall: UInt64) throws {
        let store = try open()
        put(store, 0, ttl: 100)
        put(store, 1, ttl: 1000)
        clock.set(wall: wall)
        _ = store.purgeExpired()
        #expect(isThere(store, 0))
        put(store, 2, ttl: 100)
        clock.advance(seconds: 99)
        #expect(isThere(store, 0) && isThere(store, 2))
        clock.advance(seconds: 1)
        #expect(!isThere(store, 0) && isThere(store, 1) && !isThere(store, 2))
    }

    /// Nor of one that is opened again while the machine runs on, in RAM or on disk.
    @Test(arguments: [1, 900_000, 1_000_000 + 86_400] as [UInt64], [false, true])
    func norOfOneThatIsOpenedAgain(wall: UInt64, onDisk: Bool) throws {
        clock.beginBoot(7, milliseconds: 5000)
        do {
            let store = try open(onDisk: onDisk)
            put(store, 0, ttl: 100)
            if onDisk { try store.flush() }
        }
        clock.set(wall: wall)
        clock.advance(seconds: 60)
        for round in 0..<2 {
            let again = try open(onDisk: onDisk, device.afterKill(), onDisk ? TestKeeper() : keeper)
            #expect(isThere(again, 0), "round \(round)")
            put(again, 1 + round, ttl: 20)
            if round == 1 {
                clock.advance(seconds: 40)
                #expect(!isThere(again, 0))
            }
        }
    }

    /// When the machine was off, the wall clock tells for how long; one that was set meanwhile by a running store does not count,
    /// and one that went back never makes a page live for ever.
    @Test func afterAPowerCutTheWallClockTellsHowLong() throws {
        clock.beginBoot(1, milliseconds: 5000)
        do {
            let store = try open()
            put(store, 0, ttl: 1000)
            put(store, 1, ttl: 5000)
            // Found wrong by a year, as without a battery, and set.
            clock.set(wall: clock.wall + 31_536_000)
            store.heal()
            try store.flush()
        }
        clock.beginBoot(2, milliseconds: 100)
        clock.set(wall: clock.wall + 1000)
        do {
            let again = try open(device.afterKill(), TestKeeper())
            #expect(!isThere(again, 0) && isThere(again, 1))
        }
        // Off for so long as nobody knows, with a clock that begins anew.
        clock.beginBoot(3, milliseconds: 100)
        clock.set(wall: 0)
        let last = try open(device.afterKill(), TestKeeper())
        #expect(isThere(last, 1))
        clock.advance(seconds: 5000)
        #expect(!isThere(last, 1))
    }

    @Test func marksThatAreDamagedOrSenselessAreNotBelieved() throws {
        clock.beginBoot(1, milliseconds: 5000)
        do {
            let store = try open()
            put(store, 0, ttl: 1000)
            try store.flush()
        }
        let intact = device.contents("/store/clock")
        #expect(intact.count == 64)
        for offset in 0..<64 {
            var bytes = intact
            bytes[offset] ^= 0x40
            let copy = device.afterKill()
            copy.replaceContents("/store/clock", bytes)
            // Then the wall clock does.
            #expect(isThere(try open(copy, TestKeeper()), 0))
        }
        for size in [0, 1, 63] {
            let copy = device.afterKill()
            copy.replaceContents("/store/clock", Array(intact.prefix(size)))
            #expect(isThere(try open(copy, TestKeeper()), 0))
        }
    }

    // MARK: - Pins

    /// A pinned page does not expire; when it no longer is pinned, it has its life from then on.
    @Test(arguments: [false, true], [false, true]) func aPinComesBeforeAnEnd(isOnDisk: Bool, isPinnedLater: Bool) throws
    {
        let store = try open()
        put(store, 0, ttl: 10, pinned: !isPinnedLater)
        put(store, 1, ttl: 5000)
        if isPinnedLater { #expect(store.update(key(0), pinned: true)) }
        if isOnDisk { try store.evictToDisk([key(0)]) }
        for _ in 0..<5 {
            clock.advance(seconds: 100)
            _ = store.purgeExpired()
            #expect(isThere(store, 0))
        }
        #expect(store.bytes(key(0)) == page(0, bytes: 900))
        clock.advance(seconds: 100)
        try store.flush()
        // A new process finds it too.
        for again in [
            try open(device.afterKill(), keeper), try open(device.afterPowerCut(seed: 3), TestKeeper()),
        ] {
            #expect(again.bytes(key(0)) == page(0, bytes: 900))
            clock.advance(seconds: 100)
            _ = again.purgeExpired()
            #expect(again.update(key(0), pinned: false))
            clock.advance(seconds: 9)
            _ = again.purgeExpired()
            #expect(isThere(again, 0))
            clock.advance(seconds: 1)
            #expect(!isThere(again, 0))
            _ = again.purgeExpired()
            #expect(again.statistics.expired >= 1)
        }
    }
}
