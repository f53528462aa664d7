import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Files that are not as they were written. The rule: a miss or a corrupt page, never wrong bytes, and the store opens.
@Suite struct DiskDamageTests {
    private let first = "/store/segment-0000000000000001.log"
    private let sizes = [700, 1000, 300]

    /// Three pages in one segment, closed properly or left as after a kill.
    private func written(sealed: Bool) throws -> MemoryDevice {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        for n in 0..<3 {
            #expect(store.put(key(n), bytes: page(n, bytes: sizes[n]), attributes: PageAttributes()) == .stored)
        }
        try store.flush()
        if sealed { try store.close() }
        return device.afterKill()
    }

    /// Where record `n` begins; 3 is the end of the last one.
    private func offset(_ n: Int) -> Int { sizes[..<n].reduce(64) { $0 + (128 + $1 + 63) / 64 * 64 } }

    private func pages(_ store: Store) -> [Int] {
        (0..<3).filter { n in
            guard let bytes = store.bytes(key(n)) else { return false }
            #expect(bytes == page(n, bytes: sizes[n]))
            return true
        }
    }

    @Test func tornTailIsCutAtEveryOffset() throws {
        let file = try written(sealed: false).contents(first)
        #expect(file.count == offset(3))
        for end in offset(2)..<offset(3) {
            let device = MemoryDevice()
            device.replaceContents(first, Array(file[..<end]))
            do {
                let store = try Store.open(.memory(device))
                #expect(pages(store) == [0, 1])
                #expect(store.statistics.corrupt == (end == offset(2) ? 0 : 1) && store.statistics.corruptSegments == 0)
                #expect(store.put(key(9), bytes: page(9, bytes: 10), attributes: PageAttributes()) == .stored)
                try store.flush()
            }
            // The tail is gone for good: the next start finds nothing wrong.
            let store = try Store.open(.memory(device.afterKill()))
            #expect(pages(store) == [0, 1] && store.bytes(key(9)) != nil && store.statistics.corrupt == 0)
        }
    }

    @Test func firstRecordTornAtEveryOffset() throws {
        let file = try written(sealed: false).contents(first)
        for end in 0..<offset(1) {
            let device = MemoryDevice()
            device.replaceContents(first, Array(file[..<end]))
            let store = try Store.open(.memory(device))
            #expect(pages(store) == [] && store.statistics.pages == 0 && store.statistics.corruptSegments == 0)
            #expect(store.put(key(9), bytes: page(9, bytes: 10), attributes: PageAttributes()) == .stored)
            try store.flush()
            #expect(try Store.open(.memory(device.afterKill())).bytes(key(9)) != nil)
        }
    }

    @Test(arguments: [false, true]) func everyFlippedBitIsNoticed(sealed: Bool) throws {
        let device = try written(sealed: sealed)
        let file = device.contents(first)
        for bit in 0..<file.count * 8 {
            let at = bit / 8
            var damaged = file
            damaged[at] ^= 1 << UInt8(bit % 8)
            let device = MemoryDevice()
            device.replaceContents(first, damaged)
            let store = try Store.open(.memory(device))
            let left = pages(store)
            // Which record the byte belongs to; padding and the seal harm nobody.
            let record = (0..<3).first { offset($0) <= at && at < offset($0) + 128 + sizes[$0] }
            if at < 64 {
                #expect(left == [] && store.statistics.corruptSegments == 1, "byte \(at)")
                #expect(device.names == ["/store/segment-0000000000000001.log.corrupt"], "byte \(at)")
            } else {
                #expect(left == (0..<3).filter { $0 != record }, "byte \(at)")
                // A damaged seal may be counted or not: the segment is then read as one that was never sealed.
                let counted = record == nil ? 0 : 1
                if at < offset(3) { #expect(store.statistics.corrupt == counted, "byte \(at)") }
            }
        }
    }

    @Test func bitsFlippedUnderAnOpenStore() throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        for n in 0..<3 { _ = store.put(key(n), bytes: page(n, bytes: sizes[n]), attributes: PageAttributes()) }
        #expect(try store.evictToDisk((0..<3).map { key($0) }) == 3)
        device.flip(first, at: offset(1) + 128 + 500)
        device.flip(first, at: offset(2) + 70)
        #expect(store.outcome(key(1)) == .corrupt && store.outcome(key(1)) == .miss)
        #expect(!store.prefetch(key(2)) && store.outcome(key(2)) == .miss)
        #expect(store.outcome(key(0)) == .hit(700))
        #expect(store.statistics.corrupt == 2 && store.statistics.pages == 1)
        // What was found bad does not come back, and may be put again.
        #expect(store.put(key(1), bytes: page(8, bytes: 50), attributes: PageAttributes()) == .stored)
        try store.flush()
        let again = try Store.open(.memory(device.afterKill()))
        #expect(again.bytes(key(1)) == page(8, bytes: 50) && again.residence(key(2)) == .absent)
    }

    @Test func misplacedRecordIsNotBelieved() throws {
        let device = try written(sealed: true)
        var file = device.contents(first)
        // Record 2 is copied over the start of record 1, as by a write that went astray.
        let stray = file[offset(2)..<offset(3)]
        file.replaceSubrange(offset(1)..<offset(1) + stray.count, with: stray)
        device.replaceContents(first, file)
        #expect(pages(try Store.open(.memory(device))) == [0, 2])
        // A whole segment under another number is not believed either.
        device.replaceContents("/store/segment-0000000000000005.log", file)
        let store = try Store.open(.memory(device))
        #expect(pages(store) == [0, 2] && store.statistics.corruptSegments == 1)
    }

    /// A record of a removed page is copied over a later one of the same segment: its checksum is right but for the place.
    @Test(arguments: [false, true]) func misplacedRecordDoesNotUndoARemoval(sealed: Bool) throws {
        let device = MemoryDevice()
        let store = try Store.open(.memory(device))
        #expect(store.put(key(0), bytes: page(0, bytes: 500), attributes: PageAttributes()) == .stored)
        try store.flush()
        #expect(store.remove(key(0)))
        #expect(store.put(key(1), bytes: page(1, bytes: 500), attributes: PageAttributes()) == .stored)
        try store.flush()
        if sealed { try store.close() }
        var file = device.contents(first)
        let record = (128 + 500 + 63) / 64 * 64
        let later = 64 + record + 128
        file.replaceSubrange(later..<later + record, with: file[64..<64 + record])
        let damaged = MemoryDevice()
        damaged.replaceContents(first, file)
        let again = try Store.open(.memory(damaged))
        #expect(again.residence(key(0)) == .absent)
        // The index of a sealed segment tells of the page that was written over, until it is read.
        #expect(again.outcome(key(1)) == (sealed ? .corrupt : .miss))
        #expect(again.statistics.pages == 0)
    }

    @Test func pageBytesCannotPoseAsARecord() throws {
        // A page that holds the file of another store, at every alignment, in front of a damaged header.
        let file = try written(sealed: false).contents(first)
        let device = MemoryDevice()
        var configuration = StoreConfiguration.memory(device)
        configuration.salt = { 0x1234_5678 }
        do {
            let store = try Store.open(configuration)
            let bytes = Array(file[64...]) + Array(file[64...])
            #expect(store.put(key(50), bytes: bytes, attributes: PageAttributes()) == .stored)
            #expect(store.put(key(51), bytes: page(51, bytes: 20), attributes: PageAttributes()) == .stored)
            try store.flush()
        }
        device.flip(first, at: 64 + 10)
        let store = try Store.open(configuration)
        #expect(pages(store) == [] && store.statistics.pages == 1)
        #expect(store.bytes(key(51)) == page(51, bytes: 20))
    }

    @Test func setAsideFilesCountAndGoFirst() throws {
        let device = MemoryDevice()
        device.replaceContents(first, [UInt8](repeating: 7, count: 40 << 10))
        let store = try Store.open(.memory(device))
        #expect(store.statistics.corruptSegments == 1 && store.statistics.diskUsed == 40 << 10 + 64)
        for n in 0..<40 {
            #expect(store.put(key(n), bytes: page(n, bytes: 4000), attributes: PageAttributes()) == .stored)
            #expect(store.statistics.diskUsed <= 64 << 10 && device.totalBytes == store.statistics.diskUsed)
        }
        #expect(device.names.allSatisfy { !$0.hasSuffix(".corrupt") })
    }

    @Test(arguments: 1...20 as ClosedRange<UInt64>) func randomDamageNeverGivesWrongBytes(seed: UInt64) throws {
        print("damage seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let device = MemoryDevice()
        do {
            let store = try Store.open(.memory(device))
            for n in 0..<30 { _ = store.put(key(n), bytes: page(n, bytes: 500 + n * 31), attributes: PageAttributes()) }
            try store.flush()
        }
        for name in device.names {
            var file = device.contents(name)
            for _ in 0..<Int.random(in: 0...6, using: &generator) where !file.isEmpty {
                let start = Int.random(in: 0..<file.count, using: &generator)
                let end = min(file.count, start + Int.random(in: 1...600, using: &generator))
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: for at in start..<end { file[at] = 0 }
                case 1: for at in start..<end { file[at] = UInt8.random(in: 0...255, using: &generator) }
                case 2: file.removeSubrange(start..<end)
                default: file[start] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                }
            }
            device.replaceContents(name, file)
        }
        let store = try Store.open(.memory(device))
        for n in 0..<30 {
            if let bytes = store.bytes(key(n)) { #expect(bytes == page(n, bytes: 500 + n * 31)) }
        }
        #expect(store.put(key(99), bytes: page(99, bytes: 99), attributes: PageAttributes()) == .stored)
        try store.flush()
    }
}
