/// How a large fleet is simulated by a few of its machines.
///
/// A store that is simulated stands for many machines and gets the requests of one: of those that come back to it only those find
/// something that come to the same of these machines, since each has its own names for all blocks. What a machine of the fleet gets of one
/// of the many copies of the trace, a simulated store gets for one machine of one of the few copies that are simulated. The shared tier
/// and its servers shrink with the number of copies, so that what one copy finds there is the same (Waldspurger et al., FAST '15: caches
/// are well told from a sample of their keys, if they are made smaller alike).
struct Folding {
    /// Machines of the fleet.
    let nodes: Int
    /// Stores that are simulated.
    let stores: Int
    /// Copies of the trace that are simulated.
    let copies: Double

    /// More stores tell no more: the page on fleets has what they differ by.
    static let mostStores = 16
    /// Fewer would not be loaded unevenly.
    static let fewestStores = 4
    /// Requests that are simulated, where the trace has no more itself.
    static let requests = 60_000

    /// - Parameters:
    ///   - requests: of the trace.
    ///   - stores: to simulate, if there are so many; nil: as many as that takes a bounded time for.
    init(_ fleet: Fleet, requests: Int, stores: Int? = nil) {
        let enough = Self.requests * fleet.traceNodes / max(1, requests)
        nodes = fleet.nodes
        self.stores = min(fleet.nodes, stores ?? min(Self.mostStores, max(Self.fewestStores, enough)))
        copies = Double(self.stores) / Double(fleet.traceNodes)
    }

    /// Share of the fleet that is simulated.
    var share: Double { Double(stores) / Double(nodes) }

    /// The store that stands for a machine, and which of those that it stands for this one is.
    func place(_ node: Int) -> (store: Int, machine: Int) { (node % stores, node / stores) }
}
