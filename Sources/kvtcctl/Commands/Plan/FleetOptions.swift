import ArgumentParser
import FoundationEssentials
import KVTCPlan

/// Machines behind a router, and what they share.
struct FleetOptions: ParsableArguments {
    @Option(
        parsing: .unconditional,
        help:
            "Machines, such as 3 or 2,8,100: say what a tier that they share would find and how long first tokens take.",
        transform: FleetOptions.list(Parsed.whole(1...10_000)))
    var nodes: List<Int>?

    @Option(
        parsing: .unconditional, help: "Each machine's network, such as 25gbe or 1gbe,10gbe,100gbe (default: 25gbe).",
        transform: FleetOptions.list(FleetOptions.gigabits))
    var network: List<Double>?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Where the next turn of a conversation goes: random, round-robin, sticky (where the last one was; sticky=0.1 moves 10 % of the turns, "
                + "default 5 %), least-loaded, or prefix (where the prompt would be computed first). (default: random)"),
        completion: .list(["random", "round-robin", "sticky", "least-loaded", "prefix"]),
        transform: FleetOptions.router)
    var router: Router?

    @Option(
        parsing: .unconditional,
        help:
            "Memory of the shared tier, all its servers together, such as 256GiB,1TiB (default: endless; what it takes is told).",
        transform: FleetOptions.list(Parsed.size(1 << 20...1 << 55)))
    var sharedBudget: List<Int>?

    @Option(
        parsing: .unconditional,
        help: "Servers of the shared tier, each with such a network (default: one for four machines, at least 3).",
        transform: Parsed.whole(1...10_000))
    var sharedServers: Int?

    @Option(
        parsing: .unconditional,
        help:
            "Machines that the trace's requests kept busy; a fleet of more gets more of the same (default: the fewest of --nodes).",
        transform: Parsed.whole(1...10_000))
    var traceNodes: Int?

    @Option(
        parsing: .unconditional, help: "Milliseconds from a question to the shared tier to its answer (default: 0.5).",
        transform: Parsed.number(0...10_000))
    var roundTrip: Double?

    /// Several values in one argument.
    struct List<Value: Sendable>: Sendable { var values: [Value] }

    private static func list<Value>(
        _ transform: @escaping @Sendable (String) throws -> Value
    ) -> @Sendable (String) throws -> List<Value> {
        { text in
            List(
                values: try text.split(separator: ",", omittingEmptySubsequences: false).map {
                    try transform(String($0))
                })
        }
    }

    private static func gigabits(_ text: String) throws -> Double {
        let text = text.lowercased()
        guard text.hasSuffix("gbe"), let value = Double(text.dropLast(3)), (0.01...10_000).contains(value) else {
            throw ValidationError("gigabits a second are needed, such as 25gbe")
        }
        return value
    }

    private static func router(_ text: String) throws -> Router {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        switch (parts[0], parts.count) {
        case ("random", 1): return .random
        case ("round-robin", 1): return .roundRobin
        case ("least-loaded", 1): return .leastLoaded
        case ("prefix", 1): return .prefix
        case ("sticky", 1): return .sticky(moved: 0.05)
        case ("sticky", _):
            if let moved = Double(parts[1]), (0...1).contains(moved) { return .sticky(moved: moved) }
            throw ValidationError("after sticky= a share from 0 to 1 is needed, such as sticky=0.1")
        default: throw ValidationError("random, round-robin, sticky, sticky=SHARE, least-loaded or prefix is needed")
        }
    }

    func validate() throws {
        let others: [Any?] = [network, router, sharedBudget, sharedServers, traceNodes, roundTrip]
        guard nodes != nil || !others.contains(where: { $0 != nil }) else {
            throw ValidationError("How many machines? --network, --router and what is shared go with --nodes.")
        }
    }

    /// Each size with each network and budget.
    var fleets: [Fleet] {
        let sizes = Set(nodes?.values ?? []).sorted()
        let budgets = sharedBudget.map { Set($0.values).sorted().map(Optional.some) } ?? [nil]
        return sizes.flatMap { nodes in
            Set(network?.values ?? [25]).sorted().flatMap { gigabits in
                budgets.map { budget in
                    Fleet(
                        nodes: nodes, traceNodes: traceNodes ?? sizes[0], link: Fleet.link(gigabits: gigabits),
                        servers: sharedServers, budget: budget, roundTrip: (roundTrip ?? 0.5) / 1000)
                }
            }
        }
    }
}
