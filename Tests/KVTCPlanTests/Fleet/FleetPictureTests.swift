import Testing

@testable import KVTCPlan

@Suite struct FleetPictureTests {
    private func svg(nodes: [Int], gigabits: [Double]) throws -> String? {
        let planner = try #require(
            FleetPlanner(
                trace: PlannerTests.trace(100), shape: PlannerTests.shape,
                rates: Rates(prefill: .tokensPerSecond(1000)), router: .random))
        let fleets = nodes.flatMap { nodes in
            gigabits.map { Fleet(nodes: nodes, traceNodes: 2, link: Fleet.link(gigabits: $0)) }
        }
        let setups = [1.0, 16].map { Setup(ram: 16 << 20, coding: Coding(ratio: $0)) }
        return FleetPicture(try planner.plan(fleets, setups))?.svg
    }

    @Test func severalSizesAndNetworksAreADrawingEach() throws {
        let text = try #require(try svg(nodes: [2, 8, 40], gigabits: [0.1, 25]))
        for name in [
            "Share of prompt blocks found, at 25 GbE", "Mean time to the first token, 40 machines", "raw, alone",
            "16× (",
            "0.1 GbE", "100 requests for each 2 machines", "viewBox=\"0 0 760 800\"", "endless memory ",
        ] {
            #expect(text.contains(name), "\(name)")
        }
        // For each ratio a line together and one alone: three sizes, and two networks.
        #expect(text.ranges(of: "<circle ").count == 4 * 3 + 4 * 2)
        #expect(text.ranges(of: " dashed\"").count == 4)
        #expect(!text.contains("nan") && !text.contains("inf"))
    }

    @Test func oneOfBothIsOneDrawingAndOneOfEachNone() throws {
        #expect(try svg(nodes: [2, 3], gigabits: [25])?.contains("viewBox=\"0 0 760 400\"") == true)
        #expect(try svg(nodes: [2], gigabits: [1, 25])?.contains("Mean time to the first token, 2 machines") == true)
        #expect(try svg(nodes: [2], gigabits: [25]) == nil)
    }
}
