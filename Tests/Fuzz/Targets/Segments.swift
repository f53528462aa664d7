import Foundation
import KVTCStore

/// One segment file that a store opens, uses and opens again.
enum Segments {
    private static let directory: String = {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("kvtc-fuzz-\(getpid())").path
        try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        atexit { try? FileManager.default.removeItem(atPath: Segments.directory) }
        return path
    }()

    static func run(_ input: UnsafeRawBufferPointer) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] {
            try? FileManager.default.removeItem(atPath: "\(directory)/\(name)")
        }
        let file = SegmentBytes.repaired([UInt8](input))
        let path = "\(directory)/segment-0000000000000001.log"
        guard FileManager.default.createFile(atPath: path, contents: Data(file)) else { return }
        for round in 0..<2 {
            guard let store = try? Store.open(configuration) else { return }
            var seen = 0
            for tenant in store.usage.keys {
                for key in store.keys(tenant: tenant) {
                    if case .hit(let count) = store.read(key, { $0.count }) { seen += count }
                }
            }
            precondition(seen <= file.count + 3 * round, "more bytes than there were")
            let key = StoreKey(tenant: 1, page: [UInt8](repeating: 7, count: 32))!
            _ = store.put(key, bytes: [1, 2, 3], attributes: PageAttributes())
            _ = try? store.flush()
            try? store.close()
        }
    }

    private static var configuration: StoreConfiguration {
        StoreConfiguration(
            directory: directory, ramBudget: 1 << 20, diskBudget: 4 << 20, segmentBytes: 1 << 20,
            arenaBytes: 1 << 20)
    }
}

/// One memory file of the RAM tier, as a process finds it that did not write it.
enum Arenas {
    static func run(_ input: UnsafeRawBufferPointer) {
        let arena = ArenaBytes.repaired([UInt8](input))
        arena.withUnsafeBytes { bytes in
            guard let directory = try? RAMDirectory.scan(bytes) else { return }
            precondition(directory.records.count + directory.damaged <= directory.usedSlots)
        }
    }
}
