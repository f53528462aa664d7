import Foundation
import KVTCStore
import TestSupport
import Testing

/// Bits that flip in RAM.
@Suite struct MemoryDamageTests {
    /// The memory file that begins with the page's bytes.
    private func memoryFile(_ bytes: PageBytes) throws -> FileHandle {
        for name in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
            let path = "/proc/self/fd/" + name
            // The descriptors of other tests come and go; what was opened is judged by its content.
            guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path),
                target.hasPrefix("/memfd:kvtc-pages"), let file = FileHandle(forUpdatingAtPath: path),
                let content = try? file.read(upToCount: bytes.array.count), content.elementsEqual(bytes.array)
            else { continue }
            return file
        }
        throw CocoaError(.fileNoSuchFile)
    }

    private func flip(_ bytes: PageBytes, at offset: Int) throws {
        let file = try memoryFile(bytes)
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: [bytes.array[offset] ^ 4])
    }

    @Test func flippedBitIsCorruptAndThePageGoes() throws {
        let store = try Store.open(.small())
        let bytes = page(0xBAD1, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        try flip(bytes, at: 2999)
        #expect(store.outcome(key(1)) == .corrupt && store.outcome(key(1)) == .miss)
        #expect(store.statistics.corrupt == 1 && store.statistics.pages == 0 && store.statistics.ramUsed == 0)
    }

    @Test func pageGoneBadInRAMIsNotWritten() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        let bytes = page(0xBAD2, bytes: 3000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        #expect(store.put(key(2), bytes: page(2, bytes: 100), attributes: PageAttributes()) == .stored)
        try flip(bytes, at: 0)
        #expect(try store.flush().pages == 1)
        #expect(store.statistics.corrupt == 1 && store.residence(key(1)) == .absent)
        try store.close()
        let again = try Store.open(.memory(device))
        #expect(again.statistics.pages == 1 && again.statistics.corrupt == 0)
    }

    @Test func arenasAreSealed() throws {
        let store = try Store.open(.small())
        let bytes = page(0xBAD3, bytes: 1000)
        #expect(store.put(key(1), bytes: bytes, attributes: PageAttributes()) == .stored)
        let file = try memoryFile(bytes)
        #expect(throws: (any Error).self) { try file.truncate(atOffset: 0) }
        #expect(throws: (any Error).self) { try file.truncate(atOffset: 1 << 20) }
        #expect(store.bytes(key(1)) == bytes)
    }
}
