import KVTCClient
import KVTCModel
import KVTCProtocol
import Testing

@testable import KVTCDaemon

/// What it costs to bring pages back, as the daemon measures and tells it.
@Suite struct PullCostTests {
    @Test func aSourceHasAsMuchOfTheTimeAsOfTheWork() {
        var effort = PullEffort()
        // Three threads for 100 ns each, together done in 120.
        effort.add(.raw, tokens: 10, nanoseconds: 60)
        effort.add(.coded, tokens: 20, nanoseconds: 200)
        effort.add(.coded, tokens: 0, nanoseconds: 40)
        let costs = effort.costs(elapsed: 120)
        #expect(effort.allTokens == 30 && costs.map(\.source) == [.raw, .coded])
        #expect(abs(costs[0].nanoseconds - 2.4) < 1e-9 && abs(costs[1].nanoseconds - 4.8) < 1e-9)
        #expect(PullEffort().costs(elapsed: 7).isEmpty)
    }

    @Test func theMedianOfTheLatestPullsCounts() {
        var costs = PullCosts()
        #expect(costs.nanoseconds(.disk) == nil)
        func add(_ nanoseconds: UInt64) {
            var effort = PullEffort()
            effort.add(.disk, tokens: 1, nanoseconds: 1)
            costs.add(effort, elapsed: nanoseconds)
        }
        for nanoseconds in [5, 900_000, 7] as [UInt64] { add(nanoseconds) }
        #expect(costs.nanoseconds(.disk) == 7 && costs.pulls == [0, 0, 3, 0])
        for _ in 0..<PullCosts.span { add(40) }
        #expect(costs.nanoseconds(.disk) == 40)
    }

    @Test func statusTellsATenantWhatItsPagesCost() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        func costs() throws -> [StatusReport.RestoreCost] {
            try client.call(StatusRequest()).decoded(as: StatusReport.self).restoreCosts
        }
        // 16 pages of 16 tokens are as few as are measured; of these the last three stay raw.
        let session = try Pages.open(client, policy: Policy(window: 48, mode: .quant8))
        let flow = PageFlowTests()
        _ = try flow.push(session, 0..<16)
        _ = try client.call(FlushRequest(session: session.number))
        _ = try Pages.pull(client, session.number, flow.keys(0..<15), capacity: 1 << 20)
        #expect(try costs().isEmpty)
        _ = try Pages.pull(client, session.number, flow.keys(0..<16), capacity: 1 << 20, layerStep: 1)
        let row = try #require(try costs().first)
        #expect(row.profile == nil && row.tokenBytes == Pages.tokenBytes)
        #expect(try #require(row.raw.usPerToken) > 0 && #require(row.coded.usPerToken) > 0)
        #expect(row.raw.pulls == 1 && row.coded.pulls == 1 && row.disk.pulls == 0 && row.disk.usPerToken == nil)
        let keys = try #require(daemon.server.engine.ledger.withLock { $0.sessions[session.number]?.pages.map(\.key) })
        #expect(try daemon.server.engine.store.evictToDisk(keys) == 16)
        _ = try Pages.pull(client, session.number, flow.keys(0..<16), capacity: 1 << 20)
        let disk = try #require(try costs().first).disk
        #expect(try #require(disk.usPerToken) > 0 && disk.pulls == 1)
    }
}
