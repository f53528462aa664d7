import KVTCSessions
import Testing

// Windows of sessions that are idle or over.
extension LedgerTests {
    @Test func anIdleSessionsWindowIsOpenToTheCoderUntilItsNextRequest() throws {
        var ledger = Ledger()
        let context = try Self.calibrated
        var policy = Self.policy(4, 40, mode: .transform)
        policy.near = 0.01
        let id = Self.session(&ledger, policy, context)
        _ = Self.push(&ledger, id, 0..<3)
        ledger.touch(id, now: 100)
        #expect(ledger.markIdle(unusedSince: 99) == [])
        #expect(ledger.markIdle(unusedSince: 100) == [Self.key(0), Self.key(1), Self.key(2)])
        #expect(ledger.markIdle(unusedSince: 100) == [])
        let plan = try Self.begin(&ledger, Self.key(0))
        #expect(plan.choice.near == 0.01 && plan.choice.quality == .distortion(0.01))
        #expect(plan.protected.rows == [0, 1, 2, 3])
        #expect(ledger.endEncode(Self.key(0), plan) == .replace)
        ledger.endReplace(
            Self.key(0), generation: plan.generation, coded: CodedPage(exact: plan.protected, mode: .quant8))
        let running = try Self.begin(&ledger, Self.key(1))
        ledger.touch(id, now: 200)
        #expect(ledger.endEncode(Self.key(1), running) == .forget)
        #expect(ledger.beginEncode(Self.key(2)) == nil)
        // Pushed anew, page 0 is raw, and in the window like the others.
        #expect(ledger.beginRenewal(Self.key(0)) != nil)
        #expect(!ledger.isSettled([Self.key(0)]))
        #expect(Self.push(&ledger, id, 0..<1) == [])
        #expect(ledger.rawTokens(id) == 48)
        #expect(Self.push(&ledger, id, 3..<4) == [Self.key(0)])
        let ordinary = try Self.begin(&ledger, Self.key(0))
        #expect(ordinary.choice.near == nil)
    }

    @Test func theStrictestBoundOfAllWhoRestCounts() throws {
        var ledger = Ledger()
        let context = try Self.calibrated
        func open(near: Float?, limit: Float? = nil) -> UInt32 {
            var policy = Self.policy(0, 32, mode: .transform)
            (policy.near, policy.distortionLimit) = (near, limit)
            let id = Self.session(&ledger, policy, context)
            _ = Self.push(&ledger, id, 0..<1, coded: ledger.pages.isEmpty ? nil : false)
            return id
        }
        let loose = open(near: 0.1)
        let limited = open(near: 0.2, limit: 0.05)
        #expect(ledger.markIdle(unusedSince: 1) == [Self.key(0)])
        #expect(ledger.close(loose) == [])
        let plan = try Self.begin(&ledger, Self.key(0))
        #expect(plan.choice.near == 0.05)
        // A bound that becomes stricter while the coder works starts it again.
        _ = open(near: 0.01)
        #expect(ledger.endEncode(Self.key(0), plan) == .forget)
        #expect(ledger.markIdle(unusedSince: 1) == [Self.key(0)])
        #expect(ledger.close(limited) == [])
        #expect(ledger.beginEncode(Self.key(0))?.choice.near == 0.01)
    }

    @Test func withoutAProfileNearIsLossless() throws {
        var ledger = Ledger()
        var policy = Self.policy(0, 16, mode: .transform)
        policy.near = 0.01
        let id = Self.session(&ledger, policy)
        _ = Self.push(&ledger, id, 0..<1)
        #expect(ledger.close(id) == [Self.key(0)])
        #expect(ledger.beginEncode(Self.key(0))?.choice.mode == .lossless)
    }
}
