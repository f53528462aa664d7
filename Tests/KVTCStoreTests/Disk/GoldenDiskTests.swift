import Foundation
import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Directories written by earlier versions, which must be readable for ever. Each was written once, by the version that
/// introduced its format, and is never written again.
@Suite struct GoldenDiskTests {
    static let attributes = PageAttributes(
        priority: 200, pinned: true, expires: 4_000_000_000, firstPosition: 64, tokens: 16, rawBytes: 123_456,
        coded: true)

    /// A copy to open, because opening repairs.
    private func copy(_ name: String) throws -> TemporaryDirectory {
        let directory = try TemporaryDirectory()
        try FileManager.default.copyItem(atPath: testFile("Golden/" + name), toPath: directory.file("store"))
        return directory
    }

    /// Writes the directory of the present format; right only together with a new version in `DiskFormat.md`.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["KVTC_WRITE_GOLDEN"] != nil)) func write() throws {
        let path = testFile("Golden/disk-v\(SegmentHeader.version)")
        let store = try Store.open(.small(path, ram: 64 << 10))
        for n in 0..<6 {
            #expect(store.put(key(n), bytes: page(n, bytes: 300 + 400 * n), attributes: Self.attributes) == .stored)
        }
        try store.flush()
        #expect(store.remove(key(1)))
        #expect(store.replace(key(2), bytes: page(102, bytes: 500), attributes: PageAttributes(tokens: 17)))
        #expect(store.update(key(3), pinned: false, priority: 9, expiry: .never))
        try store.flush()
        for n in 6..<9 {
            #expect(store.put(key(n, tenant: 8), bytes: page(n, bytes: 1000), attributes: PageAttributes()) == .stored)
        }
        try store.flush()
        try FileManager.default.removeItem(atPath: path + "/lock")
    }

    /// Two segments: pages 0…5 with ``attributes`` were put and flushed, 1 removed, 2 replaced, 3 changed, then pages
    /// 6…8 of another tenant put and flushed; the second segment has no seal.
    @Test(arguments: ["disk-v1", "disk-v2"]) func isRead(_ name: String) throws {
        let directory = try copy(name)
        for _ in 0..<2 {
            let store = try Store.open(.small(directory.file("store")))
            #expect(store.statistics.recovered == 8 && store.statistics.corrupt == 0)
            for n in [0, 3, 4, 5] { #expect(store.bytes(key(n)) == page(n, bytes: 300 + 400 * n)) }
            #expect(store.residence(key(1)) == .absent)
            #expect(store.bytes(key(2)) == page(102, bytes: 500) && store.attributes(key(2))?.tokens == 17)
            #expect(store.attributes(key(2))?.pinned == true && store.attributes(key(4)) == Self.attributes)
            var changed = Self.attributes
            (changed.pinned, changed.priority, changed.expires) = (false, 9, nil)
            #expect(store.attributes(key(3)) == changed)
            for n in 6..<9 { #expect(store.bytes(key(n, tenant: 8)) == page(n, bytes: 1000)) }
            // The second time it is read as this version leaves it.
            try store.close()
        }
    }
}
