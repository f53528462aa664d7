import KVTCCodec
import KVTCModel
import KVTCSessions
import SyntheticProfile
import Testing

import struct KVTCStore.StoreKey

@Suite struct LedgerTests {
    static let context: CodingContext = {
        let tensors = [
            TensorGeometry(layer: 0, role: .key, heads: 1, headDim: 4),
            TensorGeometry(layer: 0, role: .value, heads: 1, headDim: 4),
        ]
        // A geometry this plain is valid.
        return CodingContext(codec: try! PageCodec(geometry: Geometry(tensors: tensors)), layout: PageLayout())
    }()

    /// The same with a profile.
    static var calibrated: CodingContext {
        get throws { CodingContext(codec: try SyntheticPages.shared.get().codec, layout: SyntheticPages.layout) }
    }

    static func key(_ n: UInt64, branch: UInt64 = 0) -> StoreKey {
        StoreKey(tenant: 7, words: SIMD4(n, branch, 0, 0))
    }

    static func session(
        _ ledger: inout Ledger, _ policy: Policy, _ context: CodingContext = context
    ) -> UInt32 {
        ledger.open { id in
            Session(
                id: id, tenant: 7, connection: 1, name: "", context: context,
                namespace: PageNamespace(identity: [], codec: context.codec, element: context.layout.element),
                pageTokens: 16, tokenBytes: 16, policy: policy)
        }
    }

    static func policy(_ sink: UInt32, _ window: UInt32, _ ranges: [Range<UInt32>] = [], mode: Mode = .quant8)
        -> Policy
    {
        Policy(
            sink: sink, window: window, mode: mode,
            protected: ranges.map { PositionRange(begin: $0.lowerBound, end: $0.upperBound) })
    }

    /// Pushes pages of 16 tokens and gives those that become ready.
    static func push(
        _ ledger: inout Ledger, _ id: UInt32, _ pages: Range<Int>, branch: UInt64 = 0, coded: Bool? = nil
    ) -> [StoreKey] {
        pages.flatMap { page in
            ledger.pushed(id, key: key(UInt64(page), branch: branch), first: page * 16, tokens: 16, coded: coded)
        }
    }

    static func begin(_ ledger: inout Ledger, _ key: StoreKey) throws -> EncodePlan {
        let plan = ledger.beginEncode(key)
        return try #require(plan)
    }

    static func change(_ ledger: inout Ledger, _ id: UInt32, _ policy: Policy) throws -> Ledger.PolicyChange {
        let change = ledger.setPolicy(id, policy)
        return try #require(change)
    }

    static func encode(_ ledger: inout Ledger, _ key: StoreKey) -> RowSet? {
        guard let plan = ledger.beginEncode(key), ledger.endEncode(key, plan) == .replace else { return nil }
        ledger.endReplace(key, generation: plan.generation, coded: CodedPage(exact: plan.protected, mode: .quant8))
        return plan.protected
    }

    @Test func pagesAreReleasedAsTheWindowSlides() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(4, 20))
        #expect(Self.push(&ledger, id, 0..<2) == [])
        // 48 tokens: the window begins at 28, so only page 0 (0..<16) has left it.
        #expect(Self.push(&ledger, id, 2..<3) == [Self.key(0)])
        #expect(Self.push(&ledger, id, 3..<4) == [Self.key(1)])
        #expect(Self.encode(&ledger, Self.key(0))?.rows == [0, 1, 2, 3])
        #expect(Self.encode(&ledger, Self.key(1))?.rows == [])
        #expect(ledger.rawTokens(id) == 32)
    }

    @Test func protectedRangesAreTokenExact() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 0, [14..<18, 20..<21, 17..<19]))
        #expect(Self.push(&ledger, id, 0..<2) == [Self.key(0), Self.key(1)])
        #expect(Self.encode(&ledger, Self.key(0))?.rows == [14, 15])
        #expect(Self.encode(&ledger, Self.key(1))?.rows == [0, 1, 2, 4])
    }

    @Test func aSharedPageStaysRawWhileAnyWindowHoldsIt() {
        var ledger = Ledger()
        let short = Self.session(&ledger, Self.policy(2, 0))
        let long = Self.session(&ledger, Self.policy(0, 64, [8..<9]))
        #expect(Self.push(&ledger, long, 0..<1) == [])
        #expect(Self.push(&ledger, short, 0..<2, coded: false) == [Self.key(1)])
        #expect(ledger.beginEncode(Self.key(0)) == nil)
        // The long window moves on over page 0; rows of both policies stay.
        #expect(Self.push(&ledger, long, 4..<6) == [Self.key(0)])
        #expect(Self.encode(&ledger, Self.key(0))?.rows == [0, 1, 8])
    }

    @Test func theStrictestModeWins() {
        var ledger = Ledger()
        let lossy = Self.session(&ledger, Self.policy(0, 16))
        let exact = Self.session(&ledger, Self.policy(0, 16, mode: .lossless))
        _ = Self.push(&ledger, lossy, 0..<1)
        _ = Self.push(&ledger, exact, 0..<2, coded: false)
        #expect(ledger.close(lossy) == [Self.key(0)])
        #expect(ledger.beginEncode(Self.key(0))?.choice.mode == .lossless)
    }

    @Test func whatAClosedSessionProtectedStaysExact() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(4, 20))
        _ = Self.push(&ledger, id, 0..<3)
        // 48 tokens, the window begins at 28.
        #expect(ledger.close(id) == [Self.key(1), Self.key(2)])
        #expect(Self.encode(&ledger, Self.key(0))?.rows == [0, 1, 2, 3])
        #expect(Self.encode(&ledger, Self.key(1))?.rows == [12, 13, 14, 15])
        #expect(Self.encode(&ledger, Self.key(2))?.rows == Array(0..<16))
        #expect(ledger.pages.isEmpty)
    }

    @Test func aGrowingWindowTakesRawPagesBackAndNamesCodedOnes() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(4, 0))
        #expect(Self.push(&ledger, id, 0..<3).count == 3)
        #expect(Self.encode(&ledger, Self.key(0))?.rows == [0, 1, 2, 3])
        let running = try Self.begin(&ledger, Self.key(1))
        let change = try Self.change(&ledger, id, Self.policy(4, 40))
        #expect(change.rawTokens == 32)
        // The window begins at 8: of page 0, rows 8 to 15 are lossy already.
        #expect(change.alreadyCoded == [8..<16])
        #expect(ledger.endEncode(Self.key(1), running) == .forget)
        #expect(ledger.beginEncode(Self.key(2)) == nil)
        #expect(ledger.rawTokens(id) == 32)
    }

    @Test func aShrinkingWindowReleasesPages() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 48))
        #expect(Self.push(&ledger, id, 0..<3) == [])
        let change = try Self.change(&ledger, id, Self.policy(0, 16))
        #expect(change.ready == [Self.key(0), Self.key(1)])
        #expect(change.alreadyCoded == [])
        #expect(change.rawTokens == 48)
    }

    @Test func protectionThatGrowsDuringAJobStartsItAgain() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 0))
        _ = Self.push(&ledger, id, 0..<1)
        let plan = try Self.begin(&ledger, Self.key(0))
        _ = ledger.setPolicy(id, Self.policy(2, 0))
        #expect(ledger.endEncode(Self.key(0), plan) == .again)
        #expect(Self.encode(&ledger, Self.key(0))?.rows == [0, 1])
    }

    @Test func alreadyCodedNamesAllThatIsProtectedAndLossy() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 0, [0..<2]))
        _ = Self.push(&ledger, id, 0..<2)
        _ = Self.encode(&ledger, Self.key(0))
        _ = Self.encode(&ledger, Self.key(1))
        let change = try Self.change(&ledger, id, Self.policy(0, 0, [0..<4, 15..<18]))
        #expect(change.alreadyCoded == [2..<4, 15..<18])
        // Pages of before: unknown until somebody looks, then by what the header says.
        let other = Self.session(&ledger, Self.policy(0, 0))
        _ = ledger.pushed(other, key: Self.key(9), first: 0, tokens: 16, coded: true)
        #expect(ledger.unresolved(other, under: Self.policy(0, 0)) == [])
        #expect(ledger.unresolved(other, under: Self.policy(3, 0)) == [Self.key(9)])
        var exact = RowSet(count: 16)
        exact.insert(0)
        ledger.resolve(Self.key(9), CodedPage(exact: exact, mode: .quant8))
        #expect(ledger.unresolved(other, under: Self.policy(3, 0)) == [])
        #expect(ledger.setPolicy(other, Self.policy(3, 0))?.alreadyCoded == [1..<3])
        // Also what the policy before protected in vain, and everything where the mode is lossless.
        #expect(ledger.setPolicy(other, Self.policy(5, 0))?.alreadyCoded == [1..<5])
        #expect(ledger.setPolicy(other, Self.policy(0, 8))?.alreadyCoded == [8..<16])
        #expect(ledger.setPolicy(other, Self.policy(0, 0, mode: .lossless))?.alreadyCoded == [1..<16])
    }

    @Test func aDroppedTailCanBePushedAgain() {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 16))
        _ = Self.push(&ledger, id, 0..<4)
        ledger.drop([Self.key(2), Self.key(3)])
        #expect(ledger.sessions[id]?.tokens == 32)
        // Of the pages left, both were released before the drop; the new end takes page 1 back into the window.
        #expect(ledger.beginEncode(Self.key(0)) != nil)
        #expect(ledger.beginEncode(Self.key(1)) == nil)
        #expect(Self.push(&ledger, id, 2..<3) == [Self.key(1)])
    }

    @Test func aPagePushedAfterItsDropIsNotTouchedByTheOldJob() throws {
        var ledger = Ledger()
        let id = Self.session(&ledger, Self.policy(0, 0))
        _ = Self.push(&ledger, id, 0..<1)
        let plan = try Self.begin(&ledger, Self.key(0))
        ledger.drop([Self.key(0)])
        _ = Self.push(&ledger, id, 0..<1)
        #expect(ledger.endEncode(Self.key(0), plan) == .forget)
        #expect(ledger.pages[Self.key(0)]?.phase == .queued)
    }
}
