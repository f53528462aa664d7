import CLinux
import Foundation
import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Arenas that are not as they were left. The rule: pages that are intact or gone, or the arena is refused; the store opens.
@Suite struct RAMDamageTests {
    private let sizes = [100, 600, 40]

    /// An arena with three pages, one replaced and one removed slot.
    private func written() throws -> [UInt8] {
        let keeper = TestKeeper()
        let store = try Store.open(.small(ram: 4 << 10).kept(by: keeper))
        for n in 0..<3 {
            #expect(store.put(key(n), bytes: page(n, bytes: sizes[n]), attributes: PageAttributes()) == .stored)
        }
        #expect(store.put(key(9), bytes: page(9, bytes: 50), attributes: PageAttributes()) == .stored)
        #expect(store.remove(key(9)) && store.update(key(1), priority: 3))
        return keeper.contents[0].bytes
    }

    /// Opens a store on such an arena and checks that nothing wrong is found; returns the pages found.
    private func pages(_ bytes: [UInt8]) throws -> (found: Set<Int>, keeper: TestKeeper, statistics: StoreStatistics) {
        let keeper = TestKeeper([("arena", bytes)])
        let store = try Store.open(.small(ram: 4 << 10).kept(by: keeper))
        let statistics = store.statistics
        var found: Set<Int> = []
        for n in 0..<3 {
            guard let bytes = store.bytes(key(n)) else { continue }
            #expect(bytes == page(n, bytes: sizes[n]))
            found.insert(n)
        }
        #expect(store.statistics.pages == found.count && store.residence(key(9)) == .absent)
        return (found, keeper, statistics)
    }

    @Test func everySingleBit() throws {
        let bytes = try written()
        #expect(try pages(bytes).found == [0, 1, 2])
        let data = bytes.count - (4 << 10)
        // The header's fields, the slots in use, the extents of the three pages.
        let places = [0..<64, 4096..<4096 + 6 * 128, data..<data + 5 * 512]
        var lost = 0
        for bit in places.flatMap({ $0.lowerBound * 8..<$0.upperBound * 8 }) {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            let (found, keeper, statistics) = try pages(damaged)
            if bit / 8 < 64 {
                #expect(found.isEmpty && keeper.forgotten["arena"] != nil && statistics.refusedArenas == 1)
            } else {
                #expect(found.count >= 2, "one bit costs one page at most")
                if found.count == 2 { lost += 1 }
            }
        }
        // All payload bits, and all of the slots but the order of use.
        #expect(lost >= 8 * (sizes.reduce(0, +) + 3 * 120))
    }

    @Test func everyTruncation() throws {
        let bytes = try written()
        for count in 0..<bytes.count {
            #expect(throws: RAMDirectoryError.self) {
                try bytes[..<count].withUnsafeBytes { (part) throws(RAMDirectoryError) in try RAMDirectory.scan(part) }
            }
        }
        for count in stride(from: 1, to: bytes.count, by: 97) {
            let (found, keeper, statistics) = try pages(Array(bytes[..<count]))
            #expect(found.isEmpty && keeper.names == [] && statistics.refusedArenas == 1)
        }
        #expect(try pages(bytes + [0]).found.isEmpty)
    }

    @Test func newerFormatIsLetGo() throws {
        var bytes = try written()
        bytes[8] = 2
        let sum = bytes[..<56].withUnsafeBytes { checksum($0) }
        withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(56..<64, with: $0) }
        let (found, keeper, _) = try pages(bytes)
        #expect(found.isEmpty && keeper.forgotten == ["arena": "it has format 2, this version reads up to 1"])
    }

    @Test func otherFilesAreLetGo() throws {
        let keeper = TestKeeper()
        var pipes: [Int32] = [0, 0]
        #expect(pipe(&pipes) == 0)
        defer { close(pipes[1]) }
        keeper.adopt("pipe", pipes[0])
        let directory = try TemporaryDirectory()
        try Data(try written()).write(to: URL(fileURLWithPath: directory.file("arena")))
        // A file can shrink under its reader.
        keeper.adopt("file", Glibc.open(directory.file("arena"), O_RDWR))
        let store = try Store.open(.small().kept(by: keeper))
        #expect(store.statistics.pages == 0 && store.statistics.refusedArenas == 2 && keeper.names == [])
        #expect(keeper.forgotten["file"] == "it is not sealed against shrinking and growing")
        #expect(store.put(key(1), bytes: page(1, bytes: 100), attributes: PageAttributes()) == .stored)
    }

    /// Noise of every kind behind a good header: nothing is found in it, nothing breaks.
    @Test(arguments: 1...40 as ClosedRange<UInt64>) func noiseInTheDirectory(seed: UInt64) throws {
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        var bytes = try written()
        for _ in 0..<Int.random(in: 1..<200, using: &generator) {
            let at = 4096 + Int.random(in: 0..<9 * 128, using: &generator)
            bytes[at] = UInt8.random(in: 0...255, using: &generator)
        }
        _ = try pages(bytes)
    }
}
