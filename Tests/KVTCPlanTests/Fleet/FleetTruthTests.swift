import TestSupport
import Testing

@testable import KVTCPlan

/// Fleets so small that what they do can be worked out by hand.
@Suite struct FleetTruthTests {
    /// Tokens of 1000 bytes in blocks of 100, 250 of them computed a second.
    static let blockBytes = 100_000.0
    static let rates = Rates(prefill: .tokensPerSecond(250))

    /// Requests by seconds and blocks.
    private func trace(_ requests: [(Double, [UInt64])]) -> Trace {
        var trace = Trace(blockTokens: 100)
        for (seconds, blocks) in requests {
            trace.add(
                time: seconds * 1000, inputTokens: 100 * blocks.count, outputTokens: nil, hashes: blocks)
        }
        return trace
    }

    private func plan(
        _ trace: Trace, _ fleet: Fleet, router: Router = .roundRobin, coding: Coding = .raw, rates: Rates = rates
    ) throws -> FleetResult {
        let planner = try #require(
            FleetPlanner(trace: trace, shape: PageShape(tokenBytes: 1000), rates: rates, router: router))
        return try planner.plan([fleet], [Setup(ram: 1 << 30, coding: coding)]).lines[0].result
    }

    private let conversation: [(Double, [UInt64])] = [
        (0, [1, 2]), (10, [1, 2, 3, 4]), (20, [1, 2, 3, 4, 5]), (30, [1, 2, 3, 4, 5]),
    ]

    /// Machines 0, 1, 0, 1: the second finds two blocks there, the third two here and two there, the fourth four here and one there.
    @Test func aConversationThatChangesMachinesFindsThereWhatItLeftElsewhere() throws {
        let fleet = Fleet(nodes: 2, link: 1e6, roundTrip: 0.01)
        let result = try plan(trace(conversation), fleet)
        #expect(result.blocks == 16 && result.here == 6 && result.there == 5 && result.fetched == 5)
        #expect(result.fetches == 3 && result.fetchedBytes == 5 * Self.blockBytes)
        // 0.2, 0.2 and 0.1 s on an idle link.
        #expect(abs(result.fetchSeconds - 0.5) < 1e-9)
        // All five blocks once.
        #expect(result.writtenBytes == 5 * Self.blockBytes && result.heldBackBytes == 0)
        // Alone 2 + 4 + 3 + 1 blocks are computed, together 2 + 2 + 1; four questions and three fetches.
        #expect(abs(result.alone.mean - 4.0 / 4) < 1e-9)
        #expect(abs(result.shared.mean - (2 + 0.5 + 7 * 0.01) / 4) < 1e-9)
        #expect(abs(result.alone.busy - 4.0 / 60) < 1e-9 && abs(result.shared.busy - 2.0 / 60) < 1e-9)
    }

    @Test func whatIsCodedCostsTheNetworkLess() throws {
        let result = try plan(trace(conversation), Fleet(nodes: 2, link: 1e6), coding: .lossless(2))
        #expect(result.fetched == 5 && result.fetchedBytes == 2.5 * Self.blockBytes)
        #expect(abs(result.fetchSeconds - 0.25) < 1e-9)
    }

    @Test func oneMachineOfItsOwnNeedsNoOther() throws {
        let result = try plan(trace(conversation), Fleet(nodes: 1, link: 1e6))
        #expect(result.here == 11 && result.there == 0 && result.alone.busy == result.shared.busy)
        let sticky = try plan(trace(conversation), Fleet(nodes: 2, link: 1e6), router: .sticky(moved: 0))
        #expect(sticky.here == 11 && sticky.there == 0)
        let moving = try plan(trace(conversation), Fleet(nodes: 2, link: 1e6), router: .sticky(moved: 1))
        #expect(moving.here == 6 && moving.there == 5)
    }

    /// Two machines want 200 kB each at once. Their links carry 1 MB/s, and one server as much: both take 0.4 s. Two servers: 0.2 s.
    @Test(arguments: [(1, 0.4), (2, 0.2)])
    func serversShareTheirLinks(servers: Int, seconds: Double) throws {
        let requests: [(Double, [UInt64])] = [(0, [1, 2]), (1, [8, 9]), (10, [8, 9, 10]), (10, [1, 2, 3])]
        let result = try plan(trace(requests), Fleet(nodes: 2, link: 1e6, servers: servers))
        #expect(result.fetched == 4 && abs(result.fetchSeconds - 2 * seconds) < 1e-9)
    }

    /// A block is computed in 0.4 s: fetched, too, over 0.25 MB/s.
    @Test func whatIsComputedFasterIsNotFetched() throws {
        let result = try plan(trace(conversation), Fleet(nodes: 2, link: 0.249e6))
        #expect(result.there == 5 && result.fetched == 0)
        #expect(result.shared.busy == result.alone.busy)
        let slow = Rates(prefill: .tokensPerSecond(250), restore: [1: 249])
        #expect(try plan(trace(conversation), Fleet(nodes: 2, link: 1e9), rates: slow).fetched == 0)
    }

    /// The link carries a block in 20 s, so that of several blocks one is written and the others wait for too long.
    @Test func aLinkThatIsFullHoldsBackWrites() throws {
        let result = try plan(trace(conversation), Fleet(nodes: 2, link: 5000))
        #expect(result.heldBackBytes > 0 && result.writtenBytes + result.heldBackBytes >= 5 * Self.blockBytes)
        #expect(result.heldBackShare == result.heldBackBytes / (result.writtenBytes + result.heldBackBytes))
    }

    /// Three blocks fit: the conversation's first two go when three others are written.
    @Test func theSharedTierDropsWhatWasUsedLongestAgo() throws {
        let requests: [(Double, [UInt64])] = [(0, [1, 2]), (1, [6, 7]), (10, [9]), (20, [1, 2, 3])]
        let small = Fleet(nodes: 2, link: 1e6, budget: 300_000)
        #expect(try plan(trace(requests), small).there == 0)
        let endless = try plan(trace(requests), Fleet(nodes: 2, link: 1e6))
        #expect(endless.there == 2)
        // Of all five blocks, and that is where they begin to be found.
        #expect(endless.memory(finding: 1) == 500_000)
        #expect(try plan(trace(requests), Fleet(nodes: 2, link: 1e6, budget: 500_000)).there == 2)
        #expect(try plan(trace(requests), Fleet(nodes: 2, link: 1e6, budget: 499_999)).there == 0)
    }

    @Test func theRouterThatKnowsPrefixesKeepsConversationsTogetherWhileMachinesAreIdle() throws {
        let result = try plan(trace(conversation), Fleet(nodes: 2, link: 1e6), router: .prefix)
        #expect(result.here == 11)
        // Ten at once: the others are computed sooner elsewhere.
        let busy = trace([(0, [1, 2])] + (3..<13).map { (10, [1, 2, $0]) } + [(60, [1])])
        #expect(try plan(busy, Fleet(nodes: 2, link: 1e6), router: .prefix).there > 0)
    }

    @Test func withoutTimesNothingIsPlanned() {
        var trace = trace([(0, [1])])
        trace.add(time: nil, inputTokens: 100, outputTokens: nil, hashes: [1])
        #expect(FleetPlanner(trace: trace, shape: PageShape(tokenBytes: 1), rates: Self.rates, router: .random) == nil)
        let timed = self.trace(conversation)
        #expect(FleetPlanner(trace: timed, shape: PageShape(tokenBytes: 1), rates: Rates(), router: .random) == nil)
    }
}
