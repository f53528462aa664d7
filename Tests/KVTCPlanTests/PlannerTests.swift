import KVTCModel
import KVTCPlan
import TestSupport
import Testing

@Suite struct PlannerTests {
    static let shape = PageShape(tokenBytes: 1024)

    static func trace(_ requests: Int = 600, blockTokens: Int = 512) throws -> Trace {
        var reader = TraceReader(blockTokens: blockTokens)
        for line in Conversations.lines(
            requests: requests, conversations: 40, blockTokens: blockTokens, seed: 18)
        { try reader.read(Array(line.utf8)) }
        return reader.trace
    }

    private func plan(
        _ setups: [Setup], shape: PageShape = shape, gpuMemory: Int = 0, rates: Rates = Rates()
    ) throws -> PlanReport {
        try Planner(trace: Self.trace(), shape: shape, gpuMemory: gpuMemory, rates: rates).plan(setups)
    }

    /// The share of blocks in leading runs that the last `capacity` blocks used have.
    private func leastRecentlyUsed(_ trace: Trace, capacity: Int) -> Double {
        var uses: [UInt32: Int] = [:]
        var (time, hits) = (0, 0)
        for request in trace.requests {
            let blocks = trace.blocks[request.blocks]
            hits += blocks.prefix { uses[$0] != nil }.count
            // The end of a conversation is used first, and goes first.
            for block in blocks.reversed() {
                time += 1
                uses[block] = time
            }
            while uses.count > capacity { uses[uses.min { $0.value < $1.value }!.key] = nil }
        }
        return Double(hits) / Double(trace.blocks.count)
    }

    @Test(arguments: [60, 120, 200])
    func oneTierOfRawPagesDoesWhatLeastRecentlyUsedDoes(pages: Int) throws {
        let trace = try Self.trace()
        let report = try plan([Setup(ram: pages * 512 * Self.shape.tokenBytes)])
        let expected = leastRecentlyUsed(trace, capacity: pages)
        #expect(abs(report.setups[0].result.hitRatio - expected) < 0.02)
        #expect(report.setups[0].result.dropped > 0)
    }

    @Test func roomForAllFindsWhatEndlessMemoryFinds() throws {
        let report = try plan([Setup(ram: 1 << 40), Setup(ram: 8 << 20, disk: 1 << 40)])
        #expect(report.ceiling.hitRatio > 0.5)
        #expect(report.setups.map(\.outcome.hitTokens) == [report.ceiling.hitTokens, report.ceiling.hitTokens])
        #expect(report.setups.map(\.result.diskHits).map { $0 > 0 } == [false, true])
        #expect(report.today.hitRatio == 0)
    }

    @Test func moreRatioAndMoreRoomFindMore() throws {
        let setups = [1.0, 2, 16].flatMap { ratio in
            [16, 64].map { Setup(ram: $0 << 20, coding: Coding(ratio: ratio)) }
        }
        let found = try plan(setups).setups.map(\.outcome.hitRatio)
        #expect(found[0] < found[1] && found[2] < found[3])
        #expect(found[0] < found[2] && found[2] < found[4])
    }

    @Test func aSmallDiskHelpsASmallRAM() throws {
        let setups = [0, 64 << 20].map { Setup(ram: 16 << 20, disk: $0) }
        let found = try plan(setups).setups.map(\.outcome.hitRatio)
        #expect(found[0] + 0.05 < found[1])
    }

    @Test func sinksAndWindowCountInTheTotal() throws {
        var trace = Trace(blockTokens: 512)
        trace.add(time: nil, inputTokens: 2048, outputTokens: nil, hashes: [1, 2, 3, 4])
        let line = try Planner(trace: trace, shape: Self.shape).plan([
            Setup(ram: 1 << 30, coding: .transform(16))
        ]).setups[0]
        // 132 tokens exact and 1916 at 16×.
        #expect(abs(line.result.totalRatio - 2048 / (132 + 1916.0 / 16)) < 1e-9)
    }

    @Test func whatTheGPUFindsByItselfIsNotKvtcdsMerit() throws {
        let report = try plan([Setup(ram: 1 << 20), Setup(ram: 1 << 40)], gpuMemory: 64 << 20)
        #expect(report.today.hitRatio > 0)
        #expect(report.setups[0].outcome.hitTokens == report.today.hitTokens)
        #expect(report.setups[1].outcome.hitTokens == report.ceiling.hitTokens)
    }

    @Test func timesAreThoseOfTheRates() throws {
        let rates = Rates(prefill: .tokensPerSecond(1000), restore: [1: 10_000])
        let report = try plan([Setup(ram: 1 << 40)], rates: rates)
        let all = Double(try Self.trace().inputTokens)
        #expect(abs(report.today.computeSeconds! - all / 1000) < 1e-6)
        let line = report.setups[0].outcome
        #expect(abs(line.computeSeconds! - Double(line.computedTokens) / 1000) < 1e-6)
        #expect(abs(line.restoreSeconds! - Double(line.hitTokens) / 10_000) < 1e-6)
        #expect(try plan([Setup(ram: 1 << 40)]).setups[0].outcome.seconds == nil)
    }

    @Test func operationsOfATokenGrowWithWhatIsBeforeIt() throws {
        var trace = Trace(blockTokens: 100)
        for _ in 0..<2 { trace.add(time: nil, inputTokens: 100, outputTokens: nil, hashes: [1]) }
        let prefill = Rates.Prefill.operations(parameters: 50, attention: 3, perSecond: 10)
        let report = try Planner(trace: trace, shape: Self.shape, rates: Rates(prefill: prefill)).plan([])
        // 2 · 50 · 100 + 2 · 3 · 100², for each of two; endless memory has the second.
        #expect(report.today.computeSeconds == 14_000)
        #expect(report.ceiling.computeSeconds == 7_000)
    }

    @Test func theLeastMemoryIsNamed() throws {
        let setups = [1.0, 16].flatMap { ratio in
            [16, 64, 256].map { Setup(ram: $0 << 20, coding: Coding(ratio: ratio)) }
        }
        let report = try plan(setups)
        for (coding, setup) in report.smallest(reaching: 0.5) {
            let enough = report.setups.filter {
                $0.setup.coding == coding && $0.outcome.hitRatio >= report.ceiling.hitRatio / 2
            }
            #expect(setup?.ram == enough.map(\.setup.ram).min())
        }
        let gain = try #require(report.greatestGain)
        #expect(gain.low.setup.ram == gain.high.setup.ram && gain.high.result.hitRatio > gain.low.result.hitRatio)
    }

    @Test func progressReachesItsEnd() throws {
        var last = 0.0
        _ = try Planner(trace: Self.trace(100), shape: Self.shape, gpuMemory: 1 << 20).plan([Setup(ram: 1 << 20)]) {
            #expect($0 >= last)
            last = $0
        }
        #expect(last == 1)
    }
}
