import KVTCSessions
import Testing

// What a session's list of pages becomes as its stream grows, goes back and loses pages.
extension LedgerTests {
    /// A million tokens in pages of 64: what a push costs must not grow with what was pushed before. Counted is how often
    /// the list of pages moves in memory, which is when it is copied.
    @Test func aLongSessionIsNotCopiedWithEveryPush() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(4, 128))
        let pages = 1_000_000 / 64
        var moves = 0
        var place: UInt = 0
        var ready = 0
        for page in 0..<pages {
            ready += ledger.pushed(id, key: Self.key(UInt64(page)), first: page * 64, tokens: 64, coded: nil).count
            let now = ledger.sessions[id]?.pages.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) } ?? 0
            if now != place { moves += 1 }
            place = now
        }
        #expect(ledger.sessions[id]?.pages.count == pages && ledger.sessions[id]?.tokens == pages * 64)
        #expect(ready == pages - 2)
        // Growth by doubling.
        #expect(moves < 20)
        // Nor does it where the stream comes again or goes back a little, as rejected tokens do.
        let before = place
        for page in stride(from: 0, to: pages, by: 7) {
            _ = ledger.pushed(id, key: Self.key(UInt64(page)), first: page * 64, tokens: 64, coded: false)
        }
        for branch in 1...50 as ClosedRange<UInt64> {
            let last = UInt64(pages - 1)
            _ = ledger.pushed(
                id, key: Self.key(last, branch: branch), first: (pages - 1) * 64, tokens: 64, coded: nil)
            _ = ledger.truncate(id, to: (pages - 1) * 64)
        }
        let after = ledger.sessions[id]?.pages.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) }
        #expect(after == before && ledger.sessions[id]?.pages.count == pages - 1)
    }

    @Test func aPushThatGoesBackCutsTheSessionThere() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(4, 40, [40..<42]))
        #expect(Self.push(&ledger, id, 0..<4) == [Self.key(0)])
        // 64 tokens, the window begins at 24. The edit is at 32: the window goes back to 8, over page 0, which waits.
        let ready = Self.push(&ledger, id, 2..<3, branch: 1)
        #expect(ready == [Self.key(2), Self.key(3)])
        let session = try #require(ledger.sessions[id])
        #expect(session.pages.map(\.key) == [Self.key(0), Self.key(1), Self.key(2, branch: 1)])
        #expect(session.tokens == 48)
        #expect(ledger.beginEncode(Self.key(0)) == nil)
        // What was only in the old window is no longer exact; the range is.
        #expect(Self.encode(&ledger, Self.key(2))?.rows == [8, 9])
        #expect(Self.encode(&ledger, Self.key(3))?.rows == [])
        #expect(ledger.pages[Self.key(2)] == nil && ledger.pages[Self.key(3)] == nil)
        // The stream goes on; pages are released as they leave the window.
        #expect(Self.push(&ledger, id, 3..<5, branch: 1) == [Self.key(0), Self.key(1)])
    }

    @Test func whatOthersUseStaysAndStaysProtected() {
        var ledger = Ledger()
        let one = Self.session(&ledger, Self.policy(0, 32))
        let other = Self.session(&ledger, Self.policy(0, 32, mode: .lossless))
        _ = Self.push(&ledger, one, 0..<4)
        _ = Self.push(&ledger, other, 0..<4, coded: false)
        let cut = ledger.truncate(one, to: 20)
        #expect(cut.left == [Self.key(1), Self.key(2), Self.key(3)] && cut.ready == [])
        #expect(ledger.sessions[one]?.tokens == 16 && ledger.sessions[other]?.tokens == 64)
        #expect(cut.left.allSatisfy { ledger.isUsed($0) })
        #expect(ledger.close(other) == [Self.key(2), Self.key(3)])
        #expect(ledger.beginEncode(Self.key(2))?.choice.mode == .lossless)
    }

    @Test func aTailThatGrowsTakesThePlaceOfTheOldOne() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 16))
        _ = Self.push(&ledger, id, 0..<2)
        _ = ledger.pushed(id, key: Self.key(8), first: 32, tokens: 5, coded: nil)
        #expect(ledger.sessions[id]?.tokens == 37)
        #expect(Self.push(&ledger, id, 2..<3) == [Self.key(1), Self.key(8)])
        #expect(ledger.sessions[id]?.tokens == 48 && ledger.sessions[id]?.pages.count == 3)
        // The same page twice is no step back.
        #expect(Self.push(&ledger, id, 1..<2, coded: false) == [] && ledger.sessions[id]?.tokens == 48)
    }

    @Test func aLostPageComesBackToItsPlace() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 16))
        _ = Self.push(&ledger, id, 0..<4)
        // Dropped, or found missing by its coder.
        ledger.drop([Self.key(1)])
        #expect(ledger.sessions[id]?.tokens == 64)
        #expect(Self.push(&ledger, id, 1..<2) == [Self.key(1)])
        #expect(ledger.sessions[id]?.pages.map(\.first) == [0, 16, 32, 48])
        // Evicted, which the ledger is not told: stored anew, it is this session's and in its window as before.
        #expect(Self.push(&ledger, id, 3..<4) == [] && Self.push(&ledger, id, 2..<3) == [Self.key(2)])
        #expect(ledger.pages[Self.key(3)]?.users == [id: 48] && ledger.rawTokens(id) == 64)
        // One that was evicted and comes back with another length takes the place of what was there.
        _ = ledger.pushed(id, key: Self.key(3), first: 48, tokens: 9, coded: nil)
        #expect(ledger.sessions[id]?.tokens == 57 && ledger.pages[Self.key(3)]?.users == [id: 48])
    }

    @Test func aPageThatIsTwiceInAStreamStaysExact() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 0))
        _ = Self.push(&ledger, id, 0..<1)
        _ = ledger.pushed(id, key: Self.key(0), first: 16, tokens: 16, coded: false)
        #expect(ledger.sessions[id]?.tokens == 32)
        #expect(Self.encode(&ledger, Self.key(0))?.count == 16)
        #expect(ledger.close(id) == [] && ledger.pages.isEmpty)
    }
}
