import StoreSimulation
import TestSupport
import Testing

@testable import KVTCStore

@Suite struct EntryTableTests {
    /// Whatever comes and goes, the table has what a dictionary would have, and its numbers have no gaps.
    @Test func entriesAreFoundAsInADictionary() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        var table = EntryTable()
        var expected: [StoreKey: PageEntry] = [:]
        for round in 0..<20_000 {
            let name = key(.random(in: 0..<3000, using: &generator), tenant: .random(in: 1...2, using: &generator))
            // Grows, shrinks and grows again.
            let grows = round / 5000 % 2 == 0
            if let there = expected[name] {
                #expect(table[name] === there && table.contains(there), "seed \(seed)")
                guard !grows || round % 4 == 0 else { continue }
                table.remove(there)
                expected[name] = nil
                #expect(table[name] == nil && !table.contains(there), "seed \(seed)")
            } else if grows || round % 4 == 0 {
                let entry = PageEntry(key: name, attributes: PageAttributes(), length: round, hash: nil)
                #expect(table[name] == nil && !table.contains(entry), "seed \(seed)")
                table.insert(entry)
                expected[name] = entry
            }
        }
        #expect(table.count == expected.count && Set(table.keys) == Set(expected.keys), "seed \(seed)")
        #expect(table.values.enumerated().allSatisfy { $0.element.number == $0.offset }, "seed \(seed)")
        for (name, entry) in expected { #expect(table[name] === entry, "seed \(seed)") }
    }

    @Test func anEntryKeepsWhatItIsTold() {
        let attributes = PageAttributes(
            priority: 7, pinned: true, expires: .max - 1, firstPosition: .max, tokens: 64, rawBytes: 1 << 40,
            coded: true,
            near: true)
        let entry = PageEntry(key: key(3), attributes: PageAttributes(), length: 5, hash: nil)
        #expect(entry.key == key(3) && entry.attributes == PageAttributes() && entry.hash == nil)
        #expect(entry.disk == nil && entry.shadow == nil && entry.list == nil && entry.leases == 0 && entry.holds == 0)
        entry.attributes = attributes
        entry.shadow = 1 << 40
        entry.list = TenantPages.protectedList
        #expect(entry.attributes == attributes && entry.shadow == 1 << 40 && entry.list == TenantPages.protectedList)
        (entry.shadow, entry.list) = (nil, nil)
        #expect(entry.shadow == nil && entry.list == nil)
    }
}
