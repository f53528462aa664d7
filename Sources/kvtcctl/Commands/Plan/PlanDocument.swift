import KVTCPlan
import KVTCProtocol

/// A plan as JSON; `man kvtcctl` lists the members.
struct PlanDocument: Encodable {
    struct Trace: Encodable {
        var requests, faults, blocks, distinctBlocks, blockTokens, inputTokens, outputTokens: Int
        @OrNull var durationS: Double?

        init(_ trace: KVTCPlan.Trace, faults: Int) {
            (requests, self.faults, blocks) = (trace.requests.count, faults, trace.blocks.count)
            (distinctBlocks, blockTokens) = (trace.distinctBlocks, trace.blockTokens)
            (inputTokens, outputTokens, durationS) = (trace.inputTokens, trace.outputTokens, trace.seconds)
        }
    }

    struct Model: Encodable {
        var tokenBytes, sink, window: Int

        init(_ shape: PageShape) { (tokenBytes, sink, window) = (shape.tokenBytes, shape.sink, shape.window) }
    }

    struct Outcome: Encodable {
        var hitRatio: Double
        var hitTokens, computedTokens: Int
        @OrNull var computeS: Double?
        @OrNull var restoreS: Double?

        init(_ outcome: PlanReport.Outcome) {
            (hitRatio, hitTokens) = (outcome.hitRatio, outcome.hitTokens)
            computedTokens = outcome.computedTokens
            (computeS, restoreS) = (outcome.computeSeconds, outcome.restoreSeconds)
        }
    }

    struct Setup: Encodable {
        var ramBytes, diskBytes: Int
        var coding: String
        var ratio, totalRatio: Double
        /// Of kvtcd alone; that of the outcome has the GPU's own hits, too.
        var storeHitRatio, ramHitRatio, diskHitRatio: Double
        var outcome: Outcome
    }

    struct Least: Encodable {
        var share: Double
        var coding: String
        var ratio: Double
        @OrNull var ramBytes: Int?
        @OrNull var diskBytes: Int?
    }

    var trace: Trace
    var model: Model
    var gpuBytes: Int
    var today, ceiling: Outcome
    var setups: [Setup]
    var least: [Least]

    init(_ report: PlanReport, faults: Int) {
        trace = Trace(report.trace, faults: faults)
        model = Model(report.shape)
        gpuBytes = report.gpuMemory
        (today, ceiling) = (Outcome(report.today), Outcome(report.ceiling))
        setups = report.setups.map { line in
            let blocks = Double(max(1, line.result.blocks))
            return Setup(
                ramBytes: line.setup.ram, diskBytes: line.setup.disk, coding: line.setup.coding.name,
                ratio: line.setup.coding.ratio, totalRatio: line.result.totalRatio,
                storeHitRatio: line.result.hitRatio, ramHitRatio: Double(line.result.ramHits) / blocks,
                diskHitRatio: Double(line.result.diskHits) / blocks, outcome: Outcome(line.outcome))
        }
        least = [0.5, 0.9].flatMap { share in
            report.smallest(reaching: share).map { coding, setup in
                Least(
                    share: share, coding: coding.name, ratio: coding.ratio, ramBytes: setup?.ram, diskBytes: setup?.disk
                )
            }
        }
    }
}
