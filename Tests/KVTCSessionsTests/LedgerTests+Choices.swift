import KVTCModel
import KVTCSessions
import Testing

// How pages are coded that several sessions use, and what each of them may rely on.
extension LedgerTests {
    @Test func everyUsersWishCountsForTheCoding() throws {
        var ledger = Ledger()
        let context = try Self.calibrated
        func open(_ mode: Mode, _ page: Int, ratio: Float = 16, limit: Float? = nil, coded: Bool? = false) {
            var policy = Self.policy(0, 0, mode: mode)
            (policy.quality, policy.distortionLimit) = (ratio, limit)
            _ = Self.push(&ledger, Self.session(&ledger, policy, context), page..<page + 1, coded: coded)
        }
        func choice(_ page: UInt64) -> CodingChoice? { ledger.beginEncode(Self.key(page))?.choice }
        // The pusher's ratio, everybody's bound.
        open(.transform, 0, ratio: 32, coded: nil)
        open(.transform, 0, limit: 0.02)
        open(.transform, 0, limit: 0.01)
        #expect(choice(0)?.quality == .bounded(ratio: 32, distortion: 0.01))
        open(.quant4, 1, coded: nil)
        open(.quant8, 1)
        #expect(choice(1)?.mode == .quant8)
        open(.transform, 2, coded: nil)
        open(.quant4, 2)
        #expect(choice(2)?.mode == .quant4)
        // A quantiser keeps to no bound.
        open(.quant8, 3, coded: nil)
        open(.transform, 3, limit: 0.01)
        #expect(choice(3)?.mode == .lossless)
    }

    @Test func aPageIsHeldAgainstWhatWasPromised() {
        func page(_ mode: Mode, _ distortion: Float = 0, exact rows: Range<Int> = 0..<0) -> CodedPage {
            var exact = RowSet(count: 16)
            exact.insert(rows)
            return CodedPage(exact: exact, mode: mode, distortion: distortion)
        }
        func keeps(_ policy: Policy, _ page: CodedPage, first: Int = 0, tokens: Int = 64, window: Bool = false)
            -> Bool
        {
            Promise(choice: CodingChoice(policy), protection: Protection(policy: policy, tokens: tokens))
                .isKept(by: page, first: first, window: window)
        }
        let exact = Self.policy(0, 0, mode: .lossless)
        #expect(!keeps(exact, page(.quant8)) && keeps(exact, page(.lossless, exact: 0..<16)))
        #expect(!keeps(Self.policy(0, 0), page(.quant4)) && !keeps(Self.policy(0, 0), page(.transform)))
        #expect(keeps(Self.policy(0, 0, mode: .quant4), page(.quant8)))
        var bound = Self.policy(0, 0, mode: .transform)
        #expect(keeps(bound, page(.quant4, 0.5)) && keeps(bound, page(.kvtc, 0.5)))
        bound.distortionLimit = 0.01
        #expect(keeps(bound, page(.transform, 0.01)) && !keeps(bound, page(.transform, 0.011)))
        #expect(!keeps(bound, page(.quant8, 0.001)))
        let sinks = Self.policy(4, 16, [20..<22])
        #expect(keeps(sinks, page(.quant8, exact: 0..<4)) && !keeps(sinks, page(.quant8, exact: 0..<3)))
        #expect(!keeps(sinks, page(.quant8), first: 16) && keeps(sinks, page(.quant8), first: 32))
        #expect(keeps(sinks, page(.quant8), first: 48) && !keeps(sinks, page(.quant8), first: 48, window: true))
    }
}
