/// What a plan for fleets says.
public struct FleetReport: Sendable {
    /// A fleet with machines of one kind.
    public struct Line: Sendable {
        /// Which.
        public var fleet: Fleet
        /// Each of its machines.
        public var setup: Setup
        /// What became of its requests.
        public var result: FleetResult
    }

    /// What was replayed.
    public let trace: Trace
    /// Of which model.
    public let shape: PageShape
    /// Which machine requests went to.
    public let router: Router
    /// Different ones in the trace.
    public let conversations: Int
    /// Share of blocks that endless memory that all share would find.
    public let ceiling: Double
    /// By machines and setup.
    public let lines: [Line]

    /// Sizes of fleets, ascending.
    public var nodes: [Int] { Set(lines.map(\.fleet.nodes)).sorted() }
    /// Links, ascending.
    public var links: [Double] { Set(lines.map(\.fleet.link)).sorted() }
    /// Machines, by ratio.
    public var setups: [Setup] { Set(lines.map(\.setup)).sorted { $0.coding.ratio < $1.coding.ratio } }
    /// Machines that the trace kept busy.
    public var traceNodes: Int { lines.first?.fleet.traceNodes ?? 1 }

    /// With the most memory for the shared tier, over this link or the fastest.
    public func best(nodes: Int, _ setup: Setup, link: Double? = nil) -> Line? {
        lines.filter {
            $0.fleet.nodes == nodes && $0.setup == setup && (link == nil || $0.fleet.link == link)
        }.max { ($0.fleet.link, $0.fleet.budget ?? .max) < ($1.fleet.link, $1.fleet.budget ?? .max) }
    }
}
