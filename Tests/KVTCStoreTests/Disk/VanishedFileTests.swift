import Foundation
import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// Files of the disk tier that somebody removes, cuts or replaces under the process, and directories that go away.
@Suite struct VanishedFileTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private var path: String { directory.file("store") }

    private func open(ram: Int = 16 << 10) throws -> Store {
        try Store.open(.small(path, ram: ram, disk: 128 << 10, segment: 16 << 10))
    }

    /// Pages 0..<20 on disk only, 20..<30 in both tiers, 30 in RAM only.
    private func filled() throws -> Store {
        let store = try open()
        for n in 0..<30 {
            #expect(
                store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes(pinned: n % 7 == 0))
                    == .stored)
        }
        try store.flush()
        try store.evictToDisk((0..<20).map { key($0) })
        #expect(store.put(key(30), bytes: page(30, bytes: 1000), attributes: PageAttributes()) == .stored)
        return store
    }

    private var segments: [String] {
        get throws {
            try FileManager.default.contentsOfDirectory(atPath: path).filter { $0.hasPrefix("segment-") }.sorted()
        }
    }

    private func check(_ store: Store, lost: Range<Int>, sourceLocation: SourceLocation = #_sourceLocation) throws {
        store.heal()
        #expect(store.statistics.state == .ready, sourceLocation: sourceLocation)
        #expect(store.statistics.lost == UInt64(lost.count), sourceLocation: sourceLocation)
        for n in 0...30 {
            let bytes = lost.contains(n) ? nil : page(n, bytes: 1000)
            #expect(store.bytes(key(n)) == bytes, "page \(n)", sourceLocation: sourceLocation)
        }
        // It goes on as if nothing had happened, and what it holds then is durable.
        for n in 40..<70 {
            #expect(
                store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored,
                sourceLocation: sourceLocation)
        }
        try store.flush()
        var onDisk = 0
        for name in try FileManager.default.contentsOfDirectory(atPath: path) {
            onDisk += try Data(contentsOf: URL(fileURLWithPath: path + "/" + name)).count
        }
        #expect(store.statistics.diskUsed == onDisk, sourceLocation: sourceLocation)
        let kept = (0..<70).filter { store.residence(key($0)) != .absent }
        try store.close()
        let again = try open(ram: 64 << 10)
        for n in kept {
            #expect(again.bytes(key(n)) == page(n, bytes: 1000), "page \(n)", sourceLocation: sourceLocation)
        }
    }

    @Test func allSegments() throws {
        let store = try filled()
        for name in try segments { try FileManager.default.removeItem(atPath: path + "/" + name) }
        try check(store, lost: 0..<20)
    }

    /// Whoever waits for a flush is not told that a page is durable in a file without a name.
    @Test func aFlushWritesAgainWhatIsLeft() throws {
        let store = try filled()
        for name in try segments { try FileManager.default.removeItem(atPath: path + "/" + name) }
        try store.flush()
        let copy = directory.file("copy")
        try FileManager.default.copyItem(atPath: path, toPath: copy)
        let again = try Store.open(.small(copy, ram: 64 << 10, disk: 128 << 10, segment: 16 << 10))
        for n in 20...30 { #expect(again.bytes(key(n)) == page(n, bytes: 1000), "page \(n)") }
        try check(store, lost: 0..<20)
    }

    @Test(arguments: [0, 10, 64, 5000]) func segmentsThatAreCut(size: Int) throws {
        let store = try filled()
        for name in try segments { #expect(truncate(path + "/" + name, off_t(size)) == 0) }
        store.heal()
        let left = (0..<20).filter { store.residence(key($0)) != .absent }
        #expect(left.count == (size == 5000 ? 8 : 0))
        for n in left { #expect(store.bytes(key(n)) == page(n, bytes: 1000)) }
        for n in left { store.remove(key(n)) }
        #expect(store.statistics.lost == UInt64(20 - left.count) && store.statistics.state == .ready)
        for n in 40..<90 {
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
        }
        try store.flush()
        #expect((20...30).allSatisfy { store.bytes(key($0)) == page($0, bytes: 1000) || !$0.isMultiple(of: 7) })
    }

    /// What is written behind a cut that nobody has noticed yet survives like all else.
    @Test(arguments: [0, 500]) func aSegmentThatIsCutUnderAWrite(size: Int) throws {
        let store = try filled()
        try store.evictToDisk([key(29)])
        #expect(truncate(path + "/" + (try #require(try segments.last)), off_t(size)) == 0)
        try store.evictToDisk([key(30)])
        try store.flush()
        #expect(store.residence(key(29)) == .absent && store.statistics.lost > 0)
        let copy = directory.file("copy")
        try FileManager.default.copyItem(atPath: path, toPath: copy)
        let again = try Store.open(.small(copy, ram: 64 << 10, disk: 128 << 10, segment: 16 << 10))
        for n in 0...30 where store.residence(key(n)) != .absent {
            #expect(again.bytes(key(n)) == page(n, bytes: 1000), "page \(n)")
        }
        #expect((20...30).allSatisfy { $0 == 29 || store.residence(key($0)) != .absent })
    }

    /// A removal, and a pin, of a page in an older file hold although the file that told of them is gone.
    @Test(arguments: [nil, 0, 64, 200] as [Int?]) func whatTheLostFileSaidOfOthers(size: Int?) throws {
        let device = MemoryDevice()
        func open(_ device: MemoryDevice) throws -> Store {
            try Store.open(.memory(device, ram: 64 << 10, disk: 128 << 10, segment: 16 << 10))
        }
        do {
            let store = try open(device)
            for n in 0..<8 {
                #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
            }
            try store.flush()
            try store.close()
        }
        let store = try open(device)
        #expect(store.remove(key(0)) && store.update(key(1), pinned: true))
        try store.flush()
        let path = try #require(device.names.last { $0.contains("segment-") })
        #expect(device.names.count { $0.contains("segment-") } == 2)
        if let size { device.cut(path, to: size) } else { device.vanish(path) }
        store.heal()
        try store.flush()
        let again = try open(device.afterPowerCut(seed: 1))
        #expect(again.residence(key(0)) == .absent && again.attributes(key(1))?.pinned == true)
        #expect((1..<8).allSatisfy { again.bytes(key($0)) == page($0, bytes: 1000) })
    }

    /// What is known to be gone is given up although the device does not tell about the rest.
    @Test func aLookThatFailsHalfWay() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device, ram: 64 << 10, disk: 128 << 10, segment: 16 << 10))
        for n in 0..<12 {
            #expect(store.put(key(n), bytes: page(n, bytes: 4000), attributes: PageAttributes()) == .stored)
        }
        try store.flush()
        #expect(try store.evictToDisk((0..<12).map { key($0) }) == 12)
        device.vanish(try #require(device.names.last { $0.contains("segment-") }))
        let looks = Atomic(0)
        let fails = { @Sendable in looks.add(1, ordering: .relaxed).oldValue > 0 }
        device.setFault { _, operation in operation == "fstat" && fails() ? .error(EIO) : nil }
        store.heal()
        let lost = store.statistics.lost
        #expect(lost > 0 && lost < 12 && lost == UInt64((0..<12).count { store.residence(key($0)) == .absent }))
        device.setFault { _, _ in nil }
        store.heal()
        #expect(store.statistics.lost == lost && store.statistics.state == .ready)
        for n in 0..<12 where store.residence(key(n)) != .absent {
            #expect(store.bytes(key(n)) == page(n, bytes: 4000), "page \(n)")
        }
    }

    /// Others in their place are not this process's.
    @Test func segmentsThatAreReplacedByCopies() throws {
        let store = try filled()
        for name in try segments {
            let file = path + "/" + name
            try FileManager.default.copyItem(atPath: file, toPath: file + "-copy")
            try FileManager.default.removeItem(atPath: file)
            try FileManager.default.moveItem(atPath: file + "-copy", toPath: file)
        }
        store.heal()
        #expect(store.statistics.lost == 20 && store.statistics.state == .ready)
        try store.flush()
        #expect((20...30).allSatisfy { store.bytes(key($0)) == page($0, bytes: 1000) })
    }

    @Test func theWholeDirectory() throws {
        let store = try filled()
        try FileManager.default.removeItem(atPath: path)
        try check(store, lost: 0..<20)
    }

    @Test func aDirectoryThatIsMovedAwayAndMadeAnew() throws {
        let store = try filled()
        try FileManager.default.moveItem(atPath: path, toPath: directory.file("away"))
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        // Nothing of this process gets into what is not locked by it.
        #expect(throws: StoreError.self) { try store.flush() }
        #expect(try FileManager.default.contentsOfDirectory(atPath: path).isEmpty)
        try check(store, lost: 0..<20)
    }

    /// What is there instead is taken over, as by a start.
    @Test func aDirectoryOfAnotherTime() throws {
        let old = directory.file("old")
        do {
            let store = try Store.open(.small(old, ram: 64 << 10, disk: 128 << 10, segment: 16 << 10))
            for n in 0..<5 {
                #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
            }
            try store.flush()
            try store.close()
        }
        let store = try filled()
        #expect(store.remove(key(25)))
        try FileManager.default.moveItem(atPath: path, toPath: directory.file("away"))
        try FileManager.default.moveItem(atPath: old, toPath: path)
        store.heal()
        #expect(store.statistics.state == .ready && store.statistics.lost == 20)
        for n in 0...30 {
            let isLost = (5..<20).contains(n) || n == 25
            #expect(store.bytes(key(n)) == (isLost ? nil : page(n, bytes: 1000)), "page \(n)")
        }
    }

    // MARK: - Locks

    private func isLocked() -> Bool {
        do {
            _ = try open()
            return false
        } catch {
            return error as? StoreError == .locked(path)
        }
    }

    @Test func withoutItsLockFileItIsLockedAllTheSame() throws {
        let store = try filled()
        try FileManager.default.removeItem(atPath: path + "/lock")
        #expect(isLocked())
        store.heal()
        // Versions that know the file only are kept out as well.
        #expect(FileManager.default.fileExists(atPath: path + "/lock") && isLocked())
        try Data().write(to: URL(fileURLWithPath: path + "/lock"), options: .atomic)
        #expect(isLocked())
        try check(store, lost: 0..<0)
    }

    /// Whoever needs room does not take it from a process that has come into a new directory meanwhile.
    @Test(arguments: 90...105) func filesOfAnotherProcessStay(count: Int) throws {
        let store = try open()
        for n in 0..<count {
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
        }
        try FileManager.default.moveItem(atPath: path, toPath: directory.file("away"))
        let other = try open(ram: 64 << 10)
        for n in 0..<30 {
            #expect(other.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
        }
        try other.flush()
        let before = try segments
        for n in count..<count + 40 {
            _ = store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes())
        }
        #expect(try segments == before)
        withExtendedLifetime(other) {}
    }

    /// Another process that came into a new directory keeps it.
    @Test func aDirectoryThatAnotherProcessHas() throws {
        let store = try filled()
        try FileManager.default.removeItem(atPath: path)
        do {
            let other = try open()
            store.heal()
            guard case .degraded(let why) = store.statistics.state else {
                Issue.record("both work in one directory")
                return
            }
            #expect(why.contains("in use by another process"))
            #expect(throws: StoreError.self) { try store.flush() }
            for n in 20...30 { #expect(store.bytes(key(n)) == page(n, bytes: 1000)) }
            #expect(other.put(key(50), bytes: page(50, bytes: 1000), attributes: PageAttributes()) == .stored)
            try other.flush()
        }
        store.heal()
        #expect(store.statistics.state == .ready && store.bytes(key(50)) == page(50, bytes: 1000))
        try store.flush()
    }
}
