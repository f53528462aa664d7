import KVTCStore

/// Works out what a shared tier would do for fleets whose machines are all alike.
public struct FleetPlanner: Sendable {
    /// The trace, whose requests all have a time.
    public let trace: Trace
    /// Of the model and the sessions.
    public let shape: PageShape
    /// For times.
    public let rates: Rates
    /// To compute prompts.
    public let prefill: Rates.Prefill
    /// Which machine a request goes to.
    public let router: Router
    private let conversations: ConversationIndex

    /// A planner; nil where requests have no time, or computing none.
    public init?(trace: Trace, shape: PageShape, rates: Rates, router: Router) {
        guard let prefill = rates.prefill, trace.seconds != nil, trace.requests.allSatisfy({ $0.time != nil }) else {
            return nil
        }
        (self.trace, self.shape, self.rates, self.prefill, self.router) = (trace, shape, rates, prefill, router)
        conversations = ConversationIndex(trace)
    }

    /// Simulates each fleet with each setup of its machines.
    /// - Parameters:
    ///   - stores: simulated for a fleet, if it has so many machines; nil: as many as a bounded time allows.
    ///   - progress: called now and then with the share of the work that is done.
    public func plan(
        _ fleets: [Fleet], _ setups: [Setup], stores: Int? = nil, progress: (Double) -> Void = { _ in }
    ) throws(StoreError) -> FleetReport {
        var lines: [FleetReport.Line] = []
        let groups = Dictionary(grouping: fleets) { [$0.nodes, $0.traceNodes] }.sorted { $0.key[0] < $1.key[0] }
        for (number, group) in groups.map(\.value).enumerated() {
            let folding = Folding(group[0], requests: trace.requests.count, stores: stores)
            let visits = Visits(trace, conversations, folding, router, prefill)
            for (index, setup) in setups.enumerated() {
                let part = (number * setups.count + index, groups.count * setups.count)
                let (hits, ratio) = try replay(visits, folding, setup) {
                    progress((Double(part.0) + $0) / Double(part.1))
                }
                for fleet in group {
                    var run = FleetRun(trace, shape, setup.coding, rates, prefill, fleet, folding)
                    var result = run.run(visits, hits)
                    result.totalRatio = ratio
                    lines.append(FleetReport.Line(fleet: fleet, setup: setup, result: result))
                }
            }
        }
        progress(1)
        return FleetReport(
            trace: trace, shape: shape, router: router, conversations: conversations.count,
            ceiling: trace.endlessRatio, lines: lines)
    }

    /// What each visit finds at its machine, one machine after another so that no more than one store is there at a time; and raw over
    /// stored bytes.
    private func replay(
        _ visits: Visits, _ folding: Folding, _ setup: Setup, progress: (Double) -> Void
    ) throws(StoreError) -> ([RequestHits], Double) {
        var hits = [RequestHits](repeating: RequestHits(blocks: 0, onDisk: 0, tokens: 0), count: visits.all.count)
        let byStore = Dictionary(grouping: visits.all.indices) { visits.all[$0].store }
        var (raw, stored, done) = (0.0, 0.0, 0)
        for store in 0..<folding.stores {
            var replay = try StoreReplay(trace, shape, setup)
            for index in byStore[store] ?? [] {
                let visit = visits.all[index]
                let request = trace.requests[Int(visit.request)]
                hits[index] = replay.visit(request, view: visit.machine * UInt32(visits.copies) + visit.copy)
                done += 1
                if done % 64 == 0 { progress(Double(done) / Double(hits.count)) }
            }
            let result = replay.finish()
            raw += result.rawBytes
            stored += result.storedBytes
        }
        return (hits, stored > 0 ? raw / stored : 1)
    }
}
