import Foundation
import TestSupport
import Testing

@testable import KVTCPlan

/// What holds of fleets whatever the trace: formulas, folding, order.
@Suite struct FleetLawTests {
    /// Conversations whose requests come at any time (a Poisson process), so many a second.
    static func trace(_ requests: Int, conversations: Int, perSecond: Double, seed: UInt64 = 19) throws -> Trace {
        var reader = TraceReader(blockTokens: 512)
        for line in Conversations.lines(
            requests: requests, conversations: conversations, blockTokens: 512, seed: seed)
        { try reader.read(Array(line.utf8)) }
        var trace = Trace(blockTokens: 512)
        var generator = SeededGenerator(seed: seed)
        var time = 0.0
        for request in reader.trace.requests {
            trace.add(
                time: time, inputTokens: request.inputTokens, outputTokens: nil,
                hashes: reader.trace.blocks[request.blocks].map(UInt64.init))
            time -= 1000 / perSecond * log(Double.random(in: Double.leastNonzeroMagnitude..<1, using: &generator))
        }
        return trace
    }

    private func result(
        _ trace: Trace, _ fleet: Fleet, router: Router = .random, ratio: Double = 1, stores: Int? = nil,
        ram: Int = 64 << 20, prefill: Double = 1000
    ) throws -> FleetResult {
        let planner = try #require(
            FleetPlanner(
                trace: trace, shape: PageShape(tokenBytes: 1024), rates: Rates(prefill: .tokensPerSecond(prefill)),
                router: router))
        return try planner.plan([fleet], [Setup(ram: ram, coding: Coding(ratio: ratio))], stores: stores).lines[0]
            .result
    }

    /// Within 15 %, at a link in use for 0.1 to 0.6 of the time, as long as servers are no bottleneck and computing is slow enough that all
    /// is fetched.
    @Test(arguments: [0.1, 0.3, 0.6])
    func fetchesTakeWhatTheFormulaSays(use: Double) throws {
        let trace = try Self.trace(4000, conversations: 60, perSecond: 8)
        let wide = try result(trace, Fleet(nodes: 4, link: 1e9, servers: 16), prefill: 1000)
        let link = try #require(wide.formula).drowning / use
        let fleet = Fleet(nodes: 4, link: link, servers: 16)
        let result = try result(trace, fleet, prefill: 1000)
        #expect(Double(result.fetched) > 0.99 * Double(result.there) && result.heldBackBytes == 0)
        let formula = try #require(result.formula)
        #expect(abs(formula.use(of: link) / use - 1) < 0.05)
        let expected = try #require(formula.seconds(over: link))
        let mean = result.fetchSeconds / Double(result.fetches)
        #expect(abs(mean / expected - 1) < 0.15, "\(mean) s, \(expected) s expected")
        // The share of the link that is in use is the formula's.
        #expect(abs(result.readShare(fleet) / formula.use(of: link) - 1) < 0.02)
        #expect(formula.seconds(over: formula.drowning) == nil)
    }

    /// On links that are idle nearly all the time: a fifth above the break-even link all that is found is fetched, a fifth below little.
    @Test func aroundTheBreakEvenLinkFetchingBeginsToPay() throws {
        let trace = try Self.trace(3000, conversations: 60, perSecond: 0.02)
        let formula = try #require(try result(trace, Fleet(nodes: 4, link: 1e9, servers: 16), prefill: 4000).formula)
        let shares = try [0.8, 1.2].map { factor in
            let fleet = Fleet(nodes: 4, link: formula.breakEven * factor, servers: 16, roundTrip: 0)
            let result = try result(trace, fleet, prefill: 4000)
            return Double(result.fetched) / Double(result.there)
        }
        #expect(shares[0] < 0.1 && shares[1] > 0.9, "\(shares)")
    }

    /// A fleet that is simulated whole, and folded into four stores. (With .roundRobin copies of the trace that come at the same pace fall
    /// into step with the machines, and so few more than many.)
    @Test(arguments: [Router.random, .sticky(moved: 0.2), .leastLoaded, .prefix])
    func aFoldedFleetDoesWhatAWholeOneDoes(router: Router) throws {
        let trace = try Self.trace(1500, conversations: 80, perSecond: 4)
        let fleet = Fleet(nodes: 16, traceNodes: 4, link: 2e6, budget: 400 << 20)
        let whole = try result(trace, fleet, router: router, ratio: 2, stores: 16, ram: 16 << 20, prefill: 20_000)
        let folded = try result(trace, fleet, router: router, ratio: 2, stores: 4, ram: 16 << 20, prefill: 20_000)
        #expect(whole.stores == 16 && folded.stores == 4 && folded.share == 0.25)
        #expect(abs(whole.hereRatio - folded.hereRatio) < 0.015, "\(whole.hereRatio), \(folded.hereRatio)")
        #expect(abs(whole.thereRatio - folded.thereRatio) < 0.03, "\(whole.thereRatio), \(folded.thereRatio)")
        #expect(abs(whole.sharedBytes / (folded.sharedBytes / folded.share) - 1) < 0.1)
    }

    @Test func aThousandMachinesAreNoMoreWorkThanSixteen() throws {
        let trace = try Self.trace(300, conversations: 20, perSecond: 4)
        let result = try result(trace, Fleet(nodes: 1000, traceNodes: 2, link: 1e9), prefill: 100_000)
        #expect(result.stores == 16 && result.requests < 16 / 2 * 300 + 1)
        // To the same of so many machines next to nothing comes back.
        #expect(result.hereRatio < 0.02 && result.thereRatio > 0.5)
    }

    @Test func thePlanIsTheSameEveryTime() throws {
        let trace = try Self.trace(400, conversations: 20, perSecond: 4)
        for router in [Router.random, .sticky(moved: 0.3), .prefix] {
            let results = try (0..<2).map { _ in
                try result(trace, Fleet(nodes: 40, traceNodes: 3, link: 1e6), router: router, ratio: 16)
            }
            #expect(
                results[0].fetchSeconds == results[1].fetchSeconds && results[0].shared.mean == results[1].shared.mean)
            #expect(results[0].here == results[1].here)
        }
    }

    @Test func memoryThatIsSaidToSufficeDoes() throws {
        let trace = try Self.trace(2000, conversations: 60, perSecond: 4)
        let endless = try result(trace, Fleet(nodes: 4, link: 1e9), prefill: 100_000)
        for share in [0.5, 0.9] {
            let needed = try #require(endless.memory(finding: share))
            let result = try result(trace, Fleet(nodes: 4, link: 1e9, budget: Int(needed)), prefill: 100_000)
            #expect(abs(Double(result.there) / Double(endless.there) - share) < 0.01)
        }
    }

    /// Against a list that is searched from its end.
    @Test func distancesAreThoseOfAList() {
        var (distances, list) = (ReuseDistance(), [(name: UInt64, bytes: Int)]())
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<2000 {
            let name = UInt64.random(in: 0..<50, using: &generator)
            let bytes = Int.random(in: 1..<100, using: &generator)
            let place = list.firstIndex { $0.name == name }
            #expect(distances.distance(name) == place.map { list[$0...].reduce(0) { $0 + $1.bytes } })
            if let place { list.remove(at: place) }
            list.append((name, bytes))
            distances.use(name, bytes: bytes)
        }
    }

    /// Against every transfer's rate worked out anew in small steps of time.
    @Test func transfersGetWhatIsFair() {
        var network = SharedNetwork(nodes: 2, link: 10, servers: 15)
        // Two to the first machine and one to the other: 5, 5 and 5 of the servers' 15.
        #expect(network.rate(joining: 0) == 10)
        network.begin(0, to: 0, bytes: 10)
        network.begin(1, to: 0, bytes: 20)
        #expect(network.rate(joining: 1) == 5)
        network.begin(2, to: 1, bytes: 30)
        var ends: [Int: Double] = [:]
        network.advance(to: .infinity) { ends[$0] = $1 }
        // At 2 s the first is there, and each machine's one gets 7.5; at 2 + 10 / 7.5 the second, and the third has its link.
        let second = 2 + 10 / 7.5
        #expect(abs(ends[0]! - 2) < 1e-9 && abs(ends[1]! - second) < 1e-9)
        #expect(abs(ends[2]! - (second + (30 - 10 - 10) / 10.0)) < 1e-9)
    }

    @Test func turnsAreToldFromPromptsThatOnlyBeginAlike() {
        var trace = Trace(blockTokens: 100)
        // A system prompt of one block; two conversations, one of which goes on twice and once more from its first turn.
        for blocks: [UInt64] in [[0, 1], [0, 2], [0, 1, 3], [0, 1, 3, 4], [0, 1, 5], [0, 6], [0, 2]] {
            trace.add(time: 0, inputTokens: 100 * blocks.count, outputTokens: nil, hashes: blocks)
        }
        let index = ConversationIndex(trace)
        #expect(index.numbers == [0, 1, 0, 0, 0, 2, 1] && index.count == 3)
    }
}
