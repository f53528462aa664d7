import KVTCPlan
import KVTCProtocol

/// A plan for fleets as JSON; `man kvtcctl` lists the members.
struct FleetDocument: Encodable {
    struct Machine: Encodable { var ramBytes, diskBytes: Int }

    struct Times: Encodable {
        var ttftMeanS, ttftMedianS, ttftP99S, gpuShare: Double

        private enum CodingKeys: String, CodingKey {
            case ttftMeanS, ttftMedianS, gpuShare
            case ttftP99S = "ttft_p99_s"
        }

        init(_ times: FleetResult.Times) {
            (ttftMeanS, ttftMedianS, ttftP99S, gpuShare) = (times.mean, times.median, times.p99, times.busy)
        }
    }

    struct Line: Encodable {
        var nodes, simulatedNodes, servers: Int
        var networkGbe: Double
        @OrNull var sharedBudgetBytes: Int?
        var coding: String
        var ratio, totalRatio, hereRatio, thereRatio, fetchedRatio: Double
        var alone, shared: Times
        var readLinkShare, writeLinkShare, heldBackShare, fetchMeanS: Double
        /// Of the whole fleet.
        var sharedBytes: Int
        /// That nine tenths of what is found there take; null with a budget.
        @OrNull var sharedNeededBytes: Int?
        @OrNull var breakEvenGbe: Double?
        @OrNull var drowningGbe: Double?
    }

    var trace: PlanDocument.Trace
    var model: PlanDocument.Model
    var machine: Machine
    var router: String
    var traceNodes, conversations: Int
    var ceilingRatio: Double
    var fleets: [Line]

    init(_ report: FleetReport, faults: Int) {
        trace = PlanDocument.Trace(report.trace, faults: faults)
        model = PlanDocument.Model(report.shape)
        machine = Machine(ramBytes: report.setups[0].ram, diskBytes: report.setups[0].disk)
        router = report.router.name
        (traceNodes, conversations, ceilingRatio) = (report.traceNodes, report.conversations, report.ceiling)
        fleets = report.lines.map { line in
            let (fleet, result) = (line.fleet, line.result)
            let formula = result.formula
            return Line(
                nodes: fleet.nodes, simulatedNodes: result.stores, servers: fleet.servers,
                networkGbe: Self.rounded(Fleet.gigabits(link: fleet.link)), sharedBudgetBytes: fleet.budget,
                coding: line.setup.coding.name, ratio: line.setup.coding.ratio, totalRatio: result.totalRatio,
                hereRatio: result.hereRatio, thereRatio: result.thereRatio, fetchedRatio: result.fetchedRatio,
                alone: Times(result.alone), shared: Times(result.shared), readLinkShare: result.readShare(fleet),
                writeLinkShare: result.writeShare(fleet), heldBackShare: result.heldBackShare,
                fetchMeanS: result.fetchSeconds / Double(max(1, result.fetches)),
                sharedBytes: Int(result.sharedBytes / result.share),
                sharedNeededBytes: result.memory(finding: 0.9).map { Int($0) },
                breakEvenGbe: formula.map { Fleet.gigabits(link: $0.breakEven) },
                drowningGbe: formula.map { Fleet.gigabits(link: $0.drowning) })
        }
    }

    /// As it was asked for: a link's name there and back differs in its last digit.
    private static func rounded(_ gigabits: Double) -> Double { (gigabits * 1000).rounded() / 1000 }
}
