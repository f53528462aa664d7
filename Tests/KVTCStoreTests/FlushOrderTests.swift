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
}
