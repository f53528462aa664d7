import KVTCStore
import StoreSimulation
import TestSupport
import Testing

/// Of a conversation the end goes first: a prefix cache has no use for an end without its beginning.
@Suite struct ConversationOrderTests {
    let device = MemoryDevice()

    private func attributes(_ n: Int) -> PageAttributes {
        PageAttributes(firstPosition: UInt32(n % 100 * 64), tokens: 64)
    }

    /// Pages of conversation `c` begin at 100 c; each is put as the engine does.
    private func push(_ store: Store, _ pages: Range<Int>) {
        store.use((pages.lowerBound / 100 * 100..<pages.upperBound).map { key($0) })
        for n in pages {
            let before = (n / 100 * 100..<n).map { key($0) }
            #expect(
                store.put(key(n), bytes: page(n, bytes: 1000), attributes: attributes(n), after: before[...]) == .stored
            )
        }
    }

    /// How many pages from its beginning are there.
    private func run(_ store: Store, _ conversation: Int) -> Int {
        (0..<100).prefix { store.residence(key(conversation * 100 + $0)) != .absent }.count
    }

    private func count(_ store: Store, _ conversation: Int) -> Int {
        (0..<100).count { store.residence(key(conversation * 100 + $0)) != .absent }
    }

    /// In RAM alone, whether a conversation came in one piece or in many.
    @Test(arguments: [1, 3, 12, 60]) func aConversationLargerThanRAMKeepsItsBeginning(pages: Int) throws {
        let store = try Store.open(.small(ram: 16 << 10))
        for begin in stride(from: 0, to: 60, by: pages) { push(store, begin..<begin + pages) }
        // All but the last one, which was taken in last.
        #expect(count(store, 0) >= 15 && run(store, 0) >= count(store, 0) - 1)
    }

    @Test func theConversationAtTheBorderLosesItsEnd() throws {
        let store = try Store.open(.small(ram: 16 << 10))
        push(store, 0..<6)
        push(store, 100..<106)
        // Used again, from the middle on as well.
        store.use((0..<6).map { key($0) })
        store.use((100..<106).map { key($0) })
        push(store, 200..<207)
        #expect(run(store, 2) == 7 && run(store, 1) == 6)
        #expect(run(store, 0) == count(store, 0) && run(store, 0) < 6)
        push(store, 300..<308)
        #expect(run(store, 3) == 8 && run(store, 2) == 7 && run(store, 0) == 0)
        #expect(run(store, 1) == count(store, 1))
    }

    /// The same on disk, where pages went in the order in which they left RAM.
    @Test(arguments: 1...5 as ClosedRange<UInt64>) func onDiskToo(seed: UInt64) throws {
        print("order seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let store = try Store.open(.memory(device, ram: 24 << 10, disk: 128 << 10, segment: 8 << 10))
        for conversation in 0..<12 {
            var begin = 0
            while begin < 20 {
                let end = min(20, begin + Int.random(in: 1...7, using: &generator))
                push(store, conversation * 100 + begin..<conversation * 100 + end)
                begin = end
            }
        }
        #expect(run(store, 11) == 20 && run(store, 10) == 20)
        let there = (0..<12).map { count(store, $0) }
        let useful = (0..<12).map { run(store, $0) }
        // Segments go whole: at most what lies in one of them is out of order.
        #expect(zip(there, useful).allSatisfy { $0 - $1 <= 8 }, "\(there), of use \(useful)")
    }

    /// More RAM than disk: what a flush keeps of the conversation at the border is its beginning.
    @Test(arguments: [Store.FlushOrder.mostWorthFirst, .mostWorthLast])
    func aFlushOfTooMuchKeepsBeginnings(order: Store.FlushOrder) throws {
        let store = try Store.open(.memory(device, ram: 160 << 10, disk: 64 << 10, segment: 8 << 10))
        for conversation in 0..<5 { push(store, conversation * 100..<conversation * 100 + 25) }
        store.use((100..<125).map { key($0) })
        #expect(throws: StoreError.self) { try store.flush(order: order) }
        let again = try Store.open(.memory(device.afterKill(), ram: 160 << 10, disk: 64 << 10, segment: 8 << 10))
        #expect(run(again, 1) == 25 && count(again, 0) == 0)
        let border = run(again, 4)
        #expect(border > 3 && border < 25 && count(again, 4) == border && count(again, 3) == 0)
    }

    /// Kept RAM knows the order.
    @Test func itOutlivesTheProcess() throws {
        let keeper = TestKeeper()
        do {
            let store = try Store.open(.small(ram: 16 << 10).kept(by: keeper))
            push(store, 100..<107)
            push(store, 0..<7)
            store.use((100..<107).map { key($0) })
        }
        let store = try Store.open(.small(ram: 16 << 10).kept(by: keeper))
        push(store, 200..<206)
        #expect(run(store, 1) == 7 && run(store, 2) == 6 && run(store, 0) == count(store, 0) && count(store, 0) < 5)
    }

    // MARK: - Prefetch

    /// Thirty old pages on a disk that is full, with a RAM for twelve: none is lost by being asked for.
    @Test func whatIsAskedForIsNotEvictedToMakeRoomForItsLike() throws {
        let store = try Store.open(.memory(device, ram: 12 << 10, disk: 64 << 10, segment: 8 << 10))
        for n in 0..<90 { #expect(store.put(key(n), bytes: page(n, bytes: 900), attributes: attributes(n)) == .stored) }
        let there = (0..<90).filter { store.residence(key($0)) != .absent }
        let old = there.filter { store.residence(key($0)) == .disk }.prefix(30).map { key($0) }
        #expect(old.count == 30)
        for round in 0..<3 {
            let use = store.use(old)
            for index in old.indices { _ = store.prefetch(index, of: use) }
            #expect(there.allSatisfy { store.residence(key($0)) != .absent }, "round \(round)")
            // The first ones come, and stay.
            let came = old.prefix { store.residence($0) == .ram }.count
            #expect(came >= 1 && old[came...].allSatisfy { store.residence($0) == .disk }, "round \(round)")
            store.use(old)
        }
        // A read of all of them keeps the first ones in RAM as well.
        let use = store.use(old)
        for index in old.indices {
            guard case .hit = store.borrow(index, of: use) else {
                Issue.record("a page is gone")
                return
            }
        }
        #expect(store.residence(old[0]) == .ram && there.allSatisfy { store.residence(key($0)) != .absent })
    }
}
