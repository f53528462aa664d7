import KVTCStore
import StoreSimulation
import Synchronization
import TestSupport
import Testing

/// In which order a flush writes, for the case that the process is ended in the middle of it.
@Suite struct FlushOrderTests {
    private func filled(_ device: MemoryDevice) throws -> Store {
        let store = try Store.open(.memory(device, ram: 64 << 10, disk: 1 << 20))
        for n in 0..<20 {
            let attributes = PageAttributes(
                priority: n == 2 ? 200 : 128, pinned: n == 5, firstPosition: UInt32(n * 64))
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: attributes) == .stored)
        }
        return store
    }

    /// A stop that is cut short loses what is least worth keeping, wherever it is cut.
    @Test(arguments: [1, 2, 3, 7, 15]) func whatIsWorthMostIsWrittenFirst(cut: Int) throws {
        let device = MemoryDevice()
        let store = try filled(device)
        let left = Mutex<MemoryDevice?>(nil)
        let written = store.bytesWritten
        device.setFault { _, operation in
            // The record that is about to be written is not there.
            let pages = Int(store.bytesWritten - written) / 1152
            if operation == "pwrite", pages == cut { left.withLock { $0 = $0 ?? device.afterKill() } }
            return nil
        }
        try store.flush(order: .mostWorthFirst)
        device.setFault { _, _ in nil }
        #expect(store.bytesWritten - written == 20 * 1152)
        let again = try Store.open(.memory(try #require(left.withLock { $0 }), ram: 64 << 10, disk: 1 << 20))
        let byWorth = [5, 2] + (0..<20).reversed().filter { ![5, 2].contains($0) }
        for (rank, n) in byWorth.enumerated() {
            #expect(again.bytes(key(n)) == (rank < cut ? page(n, bytes: 1000) : nil), "page \(n), cut at \(cut)")
        }
    }

    private let ram = 64 << 10
    private let disk = 64 << 10

    /// As a stop leaves it: 35 pages in segments of seven, the most worth in the first one.
    private func stopped(_ device: MemoryDevice, _ during: @escaping @Sendable (Store, Int) -> Void) throws {
        let store = try Store.open(.memory(device, ram: ram, disk: disk))
        for n in 0..<35 {
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
        }
        device.setFault { [unowned store] _, operation in
            if operation == "pwrite" { during(store, Int(store.bytesWritten) / 1152) }
            return nil
        }
        try store.flush(order: .mostWorthFirst)
        device.setFault { _, _ in nil }
        try store.close()
    }

    private func present(_ store: Store) -> [Int] { (0..<35).filter { store.residence(key($0)) != .absent } }

    /// What the next process has no room for is what was worth least, not what the stop wrote first.
    @Test func afterAStopWhatIsWorthLeastGoesFirst() throws {
        let device = MemoryDevice()
        try stopped(device) { _, _ in }
        let store = try Store.open(.memory(device, ram: 4 << 10, disk: disk))
        var seen: Set<Int> = []
        for n in 100..<160 {
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
            let there = present(store)
            #expect(there == Array(35 - there.count..<35))
            seen.insert(there.count)
        }
        #expect(seen.count > 3 && seen.contains(0))
        #expect((100..<160).filter { store.residence(key($0)) != .absent }.min()! > 100)
    }

    /// Removals and marks that are written in the course of such a flush hold when they go before what they are about.
    @Test func whatALaterSegmentSaysOfAnEarlierOneStays() throws {
        let device = MemoryDevice()
        try stopped(device) { store, pages in
            // The first page that was written.
            if pages == 30 { _ = store.takeOut([key(34)]) }
        }
        let store = try Store.open(.memory(device, ram: 4 << 10, disk: disk))
        for n in 100..<125 {
            #expect(store.put(key(n), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
            let again = try Store.open(.memory(device.afterKill(), ram: 4 << 10, disk: disk))
            #expect(again.residence(key(34)) == .absent)
        }
        #expect(present(store).count < 28 && present(store).contains(33))
    }
}
