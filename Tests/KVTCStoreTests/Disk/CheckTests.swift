import Foundation
import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Looking for damage: offline in a directory, online in a store.
@Suite struct CheckTests {
    private let first = "/store/segment-0000000000000001.log"

    private func filled(_ device: MemoryDevice, sealed: Bool) throws {
        let store = try Store.open(.memory(device, segment: 16 << 10))
        for n in 0..<3 {
            #expect(store.put(key(n), bytes: page(n, bytes: 500), attributes: PageAttributes()) == .stored)
        }
        try store.flush()
        #expect(store.remove(key(2)))
        if sealed { try store.close() }
    }

    private func check(_ device: MemoryDevice) throws -> StoreCheck {
        let before = device.names.map { ($0, device.contents($0)) }
        let check = try StoreCheck.run(directory: "/store", device: device)
        #expect(before.elementsEqual(device.names.map { ($0, device.contents($0)) }) { $0 == $1 }, "nothing is changed")
        return check
    }

    @Test func everyVerdict() throws {
        let device = MemoryDevice()
        try filled(device, sealed: true)
        var found = try check(device)
        #expect(found.files.map(\.verdict) == [.clean] && found.pages == 2 && found.pageBytes == 1000)
        #expect(!found.isDamaged && found.files[0].pageRecords == 3 && found.files[0].isSealed)

        let whole = device.contents(first)
        let torn = MemoryDevice()
        torn.replaceContents(first, Array(whole[..<(64 + 640 + 300)]))
        found = try check(torn)
        #expect(found.files.map(\.verdict) == [.torn] && found.files[0].tornBytes == 300 && found.pages == 1)
        #expect(!found.isDamaged)

        device.flip(first, at: 64 + 128 + 20)
        found = try check(device)
        #expect(found.files.map(\.verdict) == [.damaged] && found.files[0].damagedBytes == 640 && found.pages == 1)
        #expect(found.isDamaged)

        var newer = whole
        newer[8] = 9
        let sum = newer[..<56].withUnsafeBytes { checksum($0) }
        withUnsafeBytes(of: sum.littleEndian) { newer.replaceSubrange(56..<64, with: $0) }
        let mixed = MemoryDevice()
        mixed.replaceContents("/store/segment-0000000000000002.log", newer)
        mixed.replaceContents("/store/segment-0000000000000003.log", [UInt8](repeating: 1, count: 500))
        mixed.replaceContents("/store/segment-0000000000000004.log", [1, 2, 3])
        mixed.replaceContents("/store/segment-0000000000000005.log.corrupt", [1, 2, 3])
        // A whole segment under another number.
        mixed.replaceContents("/store/segment-0000000000000006.log", whole)
        found = try check(mixed)
        #expect(found.files.map(\.verdict) == [.newer, .corrupt, .torn, .setAside, .corrupt] && found.pages == 0)
    }

    @Test func aDirectoryInUseIsLeftAlone() throws {
        let directory = try TemporaryDirectory()
        let store = try Store.open(.small(directory.file("store")))
        #expect(throws: StoreError.locked(directory.file("store"))) {
            try StoreCheck.run(directory: directory.file("store"))
        }
        #expect(store.put(key(1), bytes: page(1, bytes: 100), attributes: PageAttributes()) == .stored)
        try store.flush()
        try store.close()
        #expect(try StoreCheck.run(directory: directory.file("store")).pages == 1)
        #expect(throws: StoreError.self) { try StoreCheck.run(directory: directory.file("none")) }
    }

    /// Calling a directory good that was given by mistake would be a comfort that nothing backs.
    @Test func aDirectoryOfSomethingElseIsAnError() throws {
        let directory = try TemporaryDirectory()
        let other = directory.file("other")
        try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: false)
        #expect(throws: StoreError.self) { try StoreCheck.run(directory: other) }
        try Data([1]).write(to: URL(fileURLWithPath: other + "/notes"))
        #expect(throws: StoreError.self) { try StoreCheck.run(directory: other) }
        try Store.open(.small(directory.file("empty"))).close()
        #expect(try StoreCheck.run(directory: directory.file("empty")).pages == 0)
    }

    /// What the check says a start would find is what a start finds.
    @Test(arguments: 1...40 as ClosedRange<UInt64>) func agreesWithAStart(seed: UInt64) throws {
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let device = MemoryDevice()
        try filled(device, sealed: Bool.random(using: &generator))
        for _ in 0..<Int.random(in: 0..<4, using: &generator) {
            device.flip(first, at: Int.random(in: 0..<device.contents(first).count, using: &generator))
        }
        let found = try check(device)
        let store = try Store.open(.memory(device.afterKill(), segment: 16 << 10))
        let intact = (0..<3).filter { store.bytes(key($0)) != nil }
        #expect(found.pages >= intact.count)
        if found.files.first?.isSealed != true { #expect(found.pages == intact.count) }
    }

    @Test func onlineVerifyTakesOutBadCopies() throws {
        let (device, keeper) = (MemoryDevice(), TestKeeper())
        let store = try Store.open(.memory(device, segment: 16 << 10).kept(by: keeper))
        for n in 0..<6 {
            #expect(store.put(key(n), bytes: page(n, bytes: 700), attributes: PageAttributes()) == .stored)
        }
        #expect(try store.evictToDisk([key(0), key(1)]) == 2)
        try store.flush([key(2), key(3)])
        var reports = 0
        var found = store.verify { _ in reports += 1 }
        #expect(found.checked == 8 && found.corrupt == 0 && found.bytes == 4 * 700 + 4 * 832 && reports == 8)
        // On disk only, on disk with a good copy in RAM, in RAM with a good copy on disk, in RAM only.
        device.flip(first, at: 64 + 128 + 5)
        device.flip(first, at: 64 + 2 * 832 + 128 + 5)
        #expect(keeper.flip(page(3, bytes: 700), at: 9) && keeper.flip(page(4, bytes: 700), at: 9))
        found = store.verify { _ in }
        #expect(found.corrupt == 4 && found.checked == 8 && found.unreadable == 0)
        #expect((0..<6).filter { store.bytes(key($0)) == page($0, bytes: 700) } == [1, 2, 3, 5])
        #expect(store.statistics.dirtyPages == 2)
        try store.flush()
        #expect(store.verify { _ in }.corrupt == 0)
        device.setFault { _, operation in operation == "pread" ? .error(EIO) : nil }
        found = store.verify { _ in }
        #expect(found.unreadable == 4 && found.corrupt == 0)
        struct Stop: Error {}
        #expect(throws: Stop.self) { try store.verify { (_) throws(Stop) in throw Stop() } }
    }

    @Test func aBadCopyInRAMIsReadFromDisk() throws {
        let keeper = TestKeeper()
        let store = try Store.open(.memory(MemoryDevice()).kept(by: keeper))
        let bytes = page(0xBAD4, bytes: 900)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        try store.flush()
        #expect(keeper.flip(bytes, at: 100))
        #expect(store.bytes(key(1)) == bytes && store.statistics.corrupt == 1 && store.residence(key(1)) == .ram)
    }

    @Test func aDiskThatWorksAgainIsFound() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        #expect(store.put(key(1), bytes: page(1, bytes: 900), attributes: PageAttributes()) == .stored)
        for fault in ["pwrite", "fdatasync", "open"] {
            device.setFault { _, operation in operation == fault ? .error(fault == "open" ? EMFILE : ENOSPC) : nil }
            _ = store.replace(key(1), bytes: page(2, bytes: 900), attributes: PageAttributes())
            _ = try? store.flush()
            guard case .degraded = store.statistics.state else { continue }
            store.heal()
            guard case .degraded = store.statistics.state else {
                Issue.record("it still fails: \(fault)")
                continue
            }
            device.setFault { _, _ in nil }
            store.heal()
            #expect(store.statistics.state == .ready, "\(fault)")
        }
        // No page is in RAM only that could be tried with.
        #expect(store.replace(key(1), bytes: page(4, bytes: 900), attributes: PageAttributes()))
        #expect(try store.evictToDisk([key(1)]) == 1)
        device.setFault { _, operation in operation == "fdatasync" ? .error(EIO) : nil }
        #expect(throws: StoreError.self) { try store.flush() }
        store.heal()
        #expect(store.statistics.state != .ready)
        device.setFault { _, _ in nil }
        store.heal()
        #expect(store.statistics.state == .ready)
        let again = try Store.open(.memory(device.afterPowerCut(seed: 1)))
        #expect(again.bytes(key(1)) == page(4, bytes: 900))
        device.setFault { _, operation in operation == "fdatasync" ? .error(EIO) : nil }
        _ = store.replace(key(1), bytes: page(3, bytes: 900), attributes: PageAttributes())
        #expect(throws: StoreError.self) { try store.flush() }
        #expect(store.statistics.state != .ready)
        device.setFault { _, _ in nil }
        store.heal()
        #expect(store.statistics.state == .ready)
    }

    /// Nor does it depend on a page that its tenant has no room for.
    @Test func aDiskThatWorksAgainIsFoundWithAQuotaInTheWay() throws {
        let device = MemoryDevice()
        var configuration = StoreConfiguration.memory(device)
        configuration.diskPerTenant = 2048
        let store = try Store.open(configuration)
        #expect(store.put(key(1), bytes: page(1, bytes: 1500), attributes: PageAttributes(pinned: true)) == .stored)
        #expect(try store.evictToDisk([key(1)]) == 1)
        #expect(store.put(key(2), bytes: page(2, bytes: 1500), attributes: PageAttributes()) == .stored)
        let other = key(3, tenant: 8)
        #expect(store.put(other, bytes: page(3, bytes: 1500), attributes: PageAttributes()) == .stored)
        device.setFault { _, operation in operation == "pwrite" ? .error(EIO) : nil }
        #expect(throws: StoreError.self) { try store.flush([other]) }
        store.heal()
        #expect(store.statistics.state != .ready)
        device.setFault { _, _ in nil }
        store.heal()
        #expect(store.statistics.state == .ready && store.bytes(key(2)) == page(2, bytes: 1500))
    }
}
