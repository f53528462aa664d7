/// Machines that each run kvtcd, behind one router, with a tier that they share.
public struct Fleet: Hashable, Sendable {
    /// How many.
    public var nodes: Int
    /// Of the trace's requests: how many machines they kept busy. A fleet of twice as many gets twice the requests.
    public var traceNodes: Int
    /// Bytes a second of each machine's link, in each direction, as far as values have it for themselves.
    public var link: Double
    /// Machines that serve the shared tier, each with such a link.
    public var servers: Int
    /// Bytes of the shared tier, of all servers together; nil: endless.
    public var budget: Int?
    /// Seconds from a question to its answer, on a link that is idle.
    public var roundTrip: Double

    /// A fleet.
    public init(
        nodes: Int, traceNodes: Int? = nil, link: Double, servers: Int? = nil, budget: Int? = nil,
        roundTrip: Double = 0.0005
    ) {
        precondition(nodes > 0 && link > 0 && roundTrip >= 0)
        (self.nodes, self.traceNodes, self.link) = (nodes, traceNodes ?? nodes, link)
        (self.servers, self.budget, self.roundTrip) = (servers ?? Self.usualServers(nodes), budget, roundTrip)
    }

    /// One for four machines, and three at least, as a cluster has that loses a third and goes on.
    public static func usualServers(_ nodes: Int) -> Int { max(3, (nodes + 3) / 4) }

    /// Bytes a second that reach a program over Ethernet of so many gigabits: 1448 of the 1538 that a full frame takes on the wire
    /// with its headers and the gap behind it.
    public static func link(gigabits: Double) -> Double { gigabits * 1e9 / 8 * 1448 / 1538 }
    /// The other way round.
    public static func gigabits(link: Double) -> Double { link * 8 / 1e9 * 1538 / 1448 }
}

/// Where a conversation's next turn goes.
public enum Router: Hashable, Sendable {
    /// One machine after another.
    case roundRobin
    /// Any.
    case random
    /// Where the conversation was last; of all turns this share has to go elsewhere, as when a machine is drained, full or gone, and the
    /// conversation stays there.
    case sticky(moved: Double)
    /// Where the least is left to compute.
    case leastLoaded
    /// Where the prompt would be computed first: what the router sent there last counts as found.
    case prefix

    /// As on the command line.
    public var name: String {
        switch self {
        case .roundRobin: "round-robin"
        case .random: "random"
        case .sticky(let moved): "sticky=\(moved)"
        case .leastLoaded: "least-loaded"
        case .prefix: "prefix"
        }
    }
}
