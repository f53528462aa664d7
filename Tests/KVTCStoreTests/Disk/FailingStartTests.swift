import Foundation
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// A start on a device that is full, takes no writes or fails is what it is while running: the store works in RAM, says so, and
/// heals.
@Suite struct FailingStartTests {
    private let device = MemoryDevice()
    private let clock = TestClock()

    private func configuration(_ device: MemoryDevice, ram: Int = 32 << 10) -> StoreConfiguration {
        .memory(device, ram: ram, disk: 256 << 10, segment: 16 << 10, clock: clock)
    }

    /// Pages 0..<10 on disk, 10..<20 in RAM that is kept.
    private func prepare(_ keeper: TestKeeper) throws {
        let store = try Store.open(configuration(device).kept(by: keeper))
        for n in 0..<10 {
            #expect(store.put(key(n), bytes: page(n, bytes: 900), attributes: PageAttributes()) == .stored)
        }
        try store.flush()
        try store.evictToDisk((0..<10).map { key($0) })
        for n in 10..<20 {
            #expect(store.put(key(n), bytes: page(n, bytes: 900), attributes: PageAttributes()) == .stored)
        }
    }

    private func isDegraded(_ store: Store) -> Bool {
        if case .degraded = store.statistics.state { true } else { false }
    }

    /// Every call on its own, for as long as the device is as it is.
    @Test(
        arguments: [
            "mkdir", "flock", "readdir", "open", "fstat", "pread", "pwrite", "rename", "ftruncate", "fdatasync", "all",
        ],
        [ENOSPC, EROFS, EIO, EDQUOT, EACCES, EMFILE, EOPNOTSUPP])
    func aStoreOpensAndHeals(operation: String, code: Int32) throws {
        let keeper = TestKeeper()
        try prepare(keeper)
        let device = device.afterKill()
        device.setFault { _, name in name == operation || operation == "all" ? .error(code) : nil }
        let store = try Store.open(configuration(device).kept(by: keeper))
        // What was kept in RAM is there, and more is taken.
        for n in 10..<20 { #expect(store.bytes(key(n)) == page(n, bytes: 900), "page \(n)") }
        #expect(store.put(key(20), bytes: page(20, bytes: 900), attributes: PageAttributes()) == .stored)
        #expect(store.remove(key(11)))
        store.remove(key(1))
        #expect(store.put(key(2), bytes: page(102, bytes: 900), attributes: PageAttributes()) != .full)
        if ["mkdir", "readdir", "open", "pwrite", "all"].contains(operation) { #expect(isDegraded(store)) }
        store.heal()
        for n in 12..<21 { #expect(store.bytes(key(n)) == page(n, bytes: 900), "page \(n)") }

        device.setFault { _, _ in nil }
        for _ in 0..<3 { store.heal() }
        #expect(store.statistics.state == .ready)
        try store.flush()
        func check(_ store: Store) {
            for n in 0...20 {
                let found = store.bytes(key(n))
                switch n {
                case 1, 11: #expect(found == nil, "page \(n) was removed")
                // Whichever was first.
                case 2: #expect([page(2, bytes: 900), page(102, bytes: 900)].contains(found))
                default:
                    #expect(found == page(n, bytes: 900) || found == nil && n < 10 && operation != "mkdir", "page \(n)")
                }
            }
        }
        check(store)
        check(try Store.open(configuration(device.afterPowerCut(seed: 1))))
    }

    /// What the disk has is there once it can be read, behind what was put since.
    @Test func whatTheDiskHasComesBackWhenItCanBeRead() throws {
        let keeper = TestKeeper()
        try prepare(keeper)
        let device = device.afterKill()
        device.setFault { _, name in name == "readdir" ? .error(EIO) : nil }
        let store = try Store.open(configuration(device).kept(by: keeper))
        #expect(isDegraded(store) && store.residence(key(0)) == .absent)
        #expect(store.put(key(0), bytes: page(100, bytes: 900), attributes: PageAttributes(pinned: true)) == .stored)
        #expect(store.put(key(1), bytes: page(1, bytes: 900), attributes: PageAttributes()) == .stored)
        #expect(!store.remove(key(2)))
        #expect(throws: StoreError.self) { try store.flush() }
        device.setFault { _, _ in nil }
        store.heal()
        #expect(store.statistics.state == .ready)
        #expect(store.bytes(key(0)) == page(100, bytes: 900) && store.attributes(key(0))?.pinned == true)
        #expect(store.bytes(key(1)) == page(1, bytes: 900) && store.bytes(key(2)) == nil)
        for n in 3..<20 { #expect(store.bytes(key(n)) == page(n, bytes: 900), "page \(n)") }
        try store.flush()
        let again = try Store.open(configuration(device.afterPowerCut(seed: 1)))
        #expect(again.bytes(key(0)) == page(100, bytes: 900) && again.bytes(key(2)) == nil)
        for n in [1] + Array(3..<20) { #expect(again.bytes(key(n)) == page(n, bytes: 900), "page \(n)") }
    }

    /// A wall clock that is not set yet does not set the store's time back where the disk tells it late.
    @Test func theTimeOfTheDiskCountsWhenItCanBeRead() throws {
        try prepare(TestKeeper())
        let device = device.afterKill()
        device.setFault { _, name in name == "readdir" ? .error(EIO) : nil }
        let clock = TestClock()
        clock.set(wall: 100)
        var configuration = configuration(device)
        configuration.clock = clock.clock
        let store = try Store.open(configuration)
        #expect(store.seconds < 1000)
        device.setFault { _, _ in nil }
        store.heal()
        #expect(store.seconds >= TestClock().wall)
    }

    /// Everything of a tenant that was removed before its pages were known stays removed.
    @Test func aRemovalOfAllReachesWhatIsNotKnownYet() throws {
        try prepare(TestKeeper())
        let device = device.afterKill()
        device.setFault { _, name in name == "flock" ? .error(EIO) : nil }
        let store = try Store.open(configuration(device))
        #expect(store.removeAll(tenant: 7) == 0)
        #expect(store.put(key(3), bytes: page(3, bytes: 900), attributes: PageAttributes()) == .stored)
        device.setFault { _, _ in nil }
        store.heal()
        for n in 0..<10 { #expect(store.bytes(key(n)) == (n == 3 ? page(3, bytes: 900) : nil), "page \(n)") }
        try store.flush()
        let again = try Store.open(configuration(device.afterPowerCut(seed: 1)))
        for n in 0..<10 { #expect(again.bytes(key(n)) == (n == 3 ? page(3, bytes: 900) : nil), "page \(n)") }
    }

    /// Pages of kept memory that has no place any more wait for the disk instead of being dropped.
    @Test func arenasWithoutAPlaceWaitForTheDisk() throws {
        let keeper = TestKeeper()
        try prepare(keeper)
        let device = device.afterKill()
        device.setFault { _, _ in .error(EROFS) }
        let store = try Store.open(configuration(device, ram: 4 << 10).kept(by: keeper))
        #expect(isDegraded(store))
        for n in 10..<20 { #expect(store.bytes(key(n)) == page(n, bytes: 900), "page \(n)") }
        device.setFault { _, _ in nil }
        store.heal()
        for n in 0..<20 { #expect(store.bytes(key(n)) == page(n, bytes: 900), "page \(n)") }
        #expect(store.statistics.ramUsed <= 4 << 10 && store.statistics.state == .ready)
    }

    @Test func anotherProcessAndANewerFormatStillRefuseTheDirectory() throws {
        let store = try Store.open(configuration(device))
        #expect(throws: StoreError.locked("/store")) { try Store.open(configuration(device)) }
        withExtendedLifetime(store) {}
    }
}
