import StoreSimulation
import TestSupport
import Testing

@testable import KVTCStore

@Suite struct PageTableTests {
    /// Whatever comes and goes, becomes compact and expanded, the table has what a dictionary would have.
    @Test func entriesAreFoundAsInADictionary() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        var table = PageTable()
        var expected: [StoreKey: PageEntry] = [:]
        for round in 0..<20_000 {
            let name = key(.random(in: 0..<3000, using: &generator), tenant: .random(in: 1...2, using: &generator))
            // Grows, shrinks and grows again.
            let grows = round / 5000 % 2 == 0
            if let there = expected[name] {
                #expect(table.find(name) == there.number && table.contains(there), "seed \(seed)")
                guard !grows || round % 4 == 0 else { continue }
                table.remove(there)
                expected[name] = nil
                #expect(table.find(name) == nil && !table.contains(there), "seed \(seed)")
            } else if grows || round % 4 == 0 {
                let entry = PageEntry(key: name, attributes: PageAttributes(), length: round, hash: nil)
                #expect(table.find(name) == nil && !table.contains(entry), "seed \(seed)")
                table.insert(entry)
                expected[name] = entry
            }
        }
        #expect(table.count == expected.count && Set(table.entries.map(\.key)) == Set(expected.keys), "seed \(seed)")
        for (name, entry) in expected {
            #expect(table.find(name).flatMap { table.expanded($0) } === entry, "seed \(seed)")
        }
    }

    @Test func anEntryKeepsWhatItIsTold() {
        let attributes = PageAttributes(
            priority: 7, pinned: true, expires: .max - 1, firstPosition: .max, tokens: 64, rawBytes: 1 << 40,
            coded: true, near: true, nonFinite: true, lossy: true)
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

    private func content(_ n: Int) -> [UInt8] { (0..<700 + n).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ n) } }

    private func arena() throws -> RAMArena {
        let mark = TimeMark(boot: 0, steady: 0, wall: 0, time: 0)
        return try RAMArena(bytes: 1 << 20, created: 0, mark: mark, step: nil)
    }

    /// Puts a page into an arena and the table; nobody has its entry afterwards.
    private func insert(_ n: Int, _ attributes: PageAttributes, _ arena: RAMArena, _ table: inout PageTable) throws {
        let bytes = content(n)
        let entry = PageEntry(key: key(n), attributes: attributes, length: bytes.count, hash: UInt64(n) + 1)
        let extent = try #require(arena.allocate(bytes.count))
        bytes.withUnsafeBytes { extent.fill($0) }
        entry.ram = extent
        (entry.lastUse, entry.writtenUse, entry.logged) = (UInt64(2 * n) + 3, UInt64(n) + 3, n % 2 == 1)
        extent.publish(
            RAMRecord(
                key: entry.key, attributes: attributes, length: entry.length, hash: entry.hash!,
                sequence: UInt64(n) + 1, lastUse: entry.lastUse))
        table.insert(entry)
    }

    /// A page in RAM is as an expanded entry again what it was before, and its room is free once it goes.
    @Test func aPageInRAMIsCompactedAndExpanded() throws {
        let arena = try arena()
        var table = PageTable()
        let attributes = (0..<40).map { (n: Int) -> PageAttributes in
            PageAttributes(
                priority: UInt8(n), pinned: n % 3 == 0, expires: n % 4 == 0 ? UInt64(UInt32.max) : nil,
                firstPosition: .max - UInt32(n), tokens: (1 << 14) - 1 - UInt32(n), rawBytes: UInt64(UInt32.max),
                coded: n % 5 == 0, near: n % 7 == 0, promised: n % 2 == 0, nonFinite: n % 11 == 0, lossy: n % 13 == 0)
        }
        for n in 0..<40 { try insert(n, attributes[n], arena, &table) }
        let used = arena.used
        table.compactSome(beyond: 0, looking: 80)
        #expect(table.entries.isEmpty && table.compactCount == 40 && arena.used == used)
        for n in 0..<40 {
            let number = try #require(table.find(key(n)))
            let page = table[number]
            #expect(page.state == .inRAM && page.key == key(n))
            #expect(page.bytes == 700 + n)
            #expect(table.attributes(number) == attributes[n])
            let list = n % 3 == 0 ? TenantPages.protectedList : n
            let use = UInt64(2 * n + 3)
            #expect(page.list == list)
            #expect(table.lastUse(number) == use)
            if n == 4 { table.noteUse(number, 1000) }
            let entry = table.expand(number)
            #expect(table.contains(entry) && entry.number == number && entry.attributes == attributes[n])
            #expect(entry.hash == UInt64(n + 1) && entry.list == list && entry.disk == nil)
            #expect(entry.logged == !n.isMultiple(of: 2))
            #expect(entry.lastUse == (n == 4 ? 1000 : use))
            #expect((entry.lastUse > entry.writtenUse) == (n > 0))
            #expect(entry.ram.map { Array($0.bytes) } == content(n))
            entry.ram?.retract()
            entry.ram = nil
            table.remove(entry)
        }
        #expect(arena.used == 0 && table.count == 0)
    }

    /// What somebody uses, and what would be forgotten, stays expanded.
    @Test func someStayExpanded() throws {
        let arena = try arena()
        var table = PageTable()
        for n in 0..<8 { try insert(n, PageAttributes(), arena, &table) }
        func entry(_ n: Int) -> PageEntry { table.expanded(table.find(key(n))!)! }
        let held = entry(0)
        let extent = entry(1).ram
        entry(2).leases = 1
        entry(3).holds = 1
        entry(4).shadow = 7
        entry(5).attributes.tokens = UInt32(UInt16.max) + 1
        entry(6).attributes.rawBytes = UInt64(UInt32.max) + 1
        table.compactSome(beyond: 0, looking: 100)
        #expect(Set(table.entries.map(\.key)) == Set((0..<7).map { key($0) }) && table.contains(held))
        #expect(table.compactCount == 1 && table.find(key(7)).map { table[$0].state } == .inRAM)
        withExtendedLifetime((held, extent)) {}
    }
}
