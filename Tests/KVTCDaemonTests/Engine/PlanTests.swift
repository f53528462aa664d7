import KVTCModel
import KVTCPlan
import KVTCReplay
import TestSupport
import Testing

/// What a plan says of a trace is what a daemon does with it.
@Suite struct PlanTests {
    private static let blockTokens = 128
    /// 64 bytes a token.
    private static let headDim = 16

    private func trace() throws -> Trace {
        var reader = TraceReader(blockTokens: Self.blockTokens)
        for line in Conversations.lines(
            requests: 500, conversations: 200, blockTokens: Self.blockTokens, seed: 181)
        { try reader.read(Array(line.utf8)) }
        return reader.trace
    }

    @Test(arguments: [
        (ram: 2 << 20, disk: 0, isCoded: false), (ram: 1 << 20, disk: 0, isCoded: true),
        (ram: 1 << 20, disk: 4 << 20, isCoded: false),
    ])
    func hitsAreWithinTwoPointsOfTheDaemons(ram: Int, disk: Int, isCoded: Bool) throws {
        let daemon = try TestDaemon { ($0.ramBudget, $0.diskBudget, $0.segmentBytes) = (ram, disk, 1 << 20) }
        defer { daemon.stop() }
        let trace = try trace()
        let replay = try DaemonReplay(
            daemon.client(), trace, isCoded ? .quantised : .raw, headDim: Self.headDim)
        let found = try replay.run()
        let report = try Planner(trace: trace, shape: PageShape(tokenBytes: replay.tokenBytes))
            .plan([replay.setup(ram: ram, disk: disk, found)])
        let planned = report.setups[0].result
        #expect(abs(planned.hitRatio - found.hitRatio) < 0.02, "planned \(planned), found \(found)")
        #expect(found.full == 0)
        // A trace that fits, or of which nothing does, would be no test.
        #expect(0.05 < found.hitRatio && found.hitRatio < report.ceiling.hitRatio - 0.05, "\(report.ceiling.hitRatio)")
        #expect((found.diskHits > 0) == (disk > 0))
    }
}
