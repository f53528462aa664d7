import KVTCPlan

/// A plan for fleets, for people.
struct FleetView {
    private let report: FleetReport
    private let hasRestoring: Bool

    /// - Parameter hasRestoring: whether decoding is counted for every ratio that is coded.
    init(_ report: FleetReport, hasRestoring: Bool) { (self.report, self.hasRestoring) = (report, hasRestoring) }

    var lines: [String] { paragraphs(facts) + [""] + table + [""] + paragraphs(advice) }

    private func paragraphs(_ texts: [String]) -> [String] {
        texts.flatMap { Terminal.wrapped(Terminal.shown($0), indent: 2) }
    }

    private var facts: [String] {
        let trace = report.trace
        let setup = report.setups[0]
        let disk = setup.disk > 0 ? " and \(Text.bytes(setup.disk)) of disk" : ""
        let span = Text.duration(trace.seconds ?? 0)
        return [
            "\(Text.count(trace.requests.count, "request")) of \(Text.count(report.conversations, "conversation")) in \(span): "
                + "\(Text.count(trace.inputTokens)) tokens of prompts, for each \(Text.count(report.traceNodes, "machine")). "
                + "A token takes \(Text.bytes(report.shape.tokenBytes)).",
            "Each machine has \(Text.bytes(setup.ram)) of RAM\(disk); \(Self.text(report.router)).",
            "Endless memory that all share would find \(Self.percent(report.ceiling)) of the blocks.",
        ]
    }

    private var table: [String] {
        let hasBudgets = report.lines.contains { $0.fleet.budget != nil }
        var columns: [(String, TextTable.Side, Int)] = [("NODES", .right, 0), ("NETWORK", .right, 0)]
        if hasBudgets { columns.append(("SHARED", .right, 0)) }
        columns += [
            ("CODING", .left, 0), ("TOTAL", .right, 4), ("HERE", .right, 0), ("THERE", .right, 0), ("ALONE", .right, 0),
            ("TOGETHER", .right, 0), ("GPU", .right, 2), ("LINK", .right, 1), ("HELD BACK", .right, 3),
        ]
        var table = TextTable(columns)
        for line in report.lines {
            let (fleet, result) = (line.fleet, line.result)
            var row = ["\(fleet.nodes)", Self.network(fleet.link)]
            if hasBudgets { row.append(fleet.budget.map { Text.bytes($0) } ?? "–") }
            row += [
                PlanView.name(line.setup.coding), "\(Text.decimal(result.totalRatio, 1))×",
                Self.percent(result.hereRatio),
                Self.percent(result.fetchedRatio), Self.time(result.alone.mean), Self.time(result.shared.mean),
                Self.percent(result.shared.busy, 0),
                Self.percent(max(result.readShare(fleet), result.writeShare(fleet)), 0),
                Self.percent(result.heldBackShare, 0),
            ]
            table.add(row)
        }
        return table.lines
    }

    private var advice: [String] {
        report.nodes.flatMap(advice) + notes
    }

    private func advice(_ nodes: Int) -> [String] {
        let best = report.setups.compactMap { report.best(nodes: nodes, $0) }
        guard let line = best.min(by: { $0.result.shared.mean < $1.result.shared.mean }) else { return [] }
        let result = line.result
        let found = Self.percent(result.hereRatio + result.fetchedRatio)
        var advice = [
            "\(Text.count(nodes, "machine")) at \(Self.network(line.fleet.link)), \(PlanView.name(line.setup.coding)): alone each finds "
                + "\(Self.percent(result.hereRatio)), together \(found). First tokens take \(Self.time(result.shared.mean)) on "
                + "average instead of \(Self.time(result.alone.mean)) (99 %: \(Self.time(result.shared.p99)) instead of "
                + "\(Self.time(result.alone.p99))), and GPUs compute \(Self.percent(result.shared.busy, 0)) of the time instead of "
                + "\(Self.percent(result.alone.busy, 0))."
        ]
        let paying = best.compactMap { line in
            line.result.formula.map { "\(PlanView.name(line.setup.coding)) \(Self.network($0.breakEven))" }
        }
        if !paying.isEmpty {
            advice.append("Network: fetching is faster than computing from about \(paying.joined(separator: ", ")) on.")
        }
        let needs = best.compactMap { line in
            line.result.memory(finding: 0.9).map {
                "\(PlanView.name(line.setup.coding)) \(Text.bytes(Int($0))) (\(Text.bytes(Int($0) / nodes)) a machine)"
            }
        }
        if !needs.isEmpty {
            advice.append("Shared memory: nine tenths of what is found there takes \(needs.joined(separator: ", ")).")
        }
        return advice
    }

    private var notes: [String] {
        var notes: [String] = []
        let drowned = report.lines.filter { $0.result.heldBackShare > 0.01 }
        if let worst = drowned.max(by: { $0.result.heldBackShare < $1.result.heldBackShare }) {
            notes.append(
                "The network drowns: \(PlanView.name(worst.setup.coding)) at \(Self.network(worst.fleet.link)) leaves "
                    + "\(Self.percent(worst.result.heldBackShare, 0)) of the bytes unwritten, and what is not there is not found."
            )
        }
        if report.lines.contains(where: { $0.result.alone.busy > 0.9 }) {
            notes.append(
                "Alone, GPUs can hardly keep up (above 90 %): times grow with the trace's length there. Say with --trace-nodes "
                    + "how many machines it kept busy.")
        }
        if !hasRestoring {
            notes.append(
                "Decoding is not counted: --restore RATIO=TOKENS/S does. Where it is slower than computing, nothing is fetched."
            )
        }
        return notes
    }

    private static func text(_ router: Router) -> String {
        switch router {
        case .roundRobin: "requests go to one machine after another"
        case .random: "requests go to any machine"
        case .sticky(let moved): "turns go to the machine of the last one, but \(percent(moved, 0)) have to move"
        case .leastLoaded: "requests go where the least is left to compute"
        case .prefix: "requests go where their prompt would be computed first"
        }
    }

    private static func network(_ link: Double) -> String {
        let gigabits = Fleet.gigabits(link: link)
        return
            "\(Text.decimal(gigabits, gigabits < 10 && (gigabits * 10).rounded() != gigabits.rounded() * 10 ? 1 : 0)) GbE"
    }

    private static func percent(_ share: Double, _ places: Int = 1) -> String {
        "\(Text.decimal(share * 100, places)) %"
    }

    private static func time(_ seconds: Double) -> String {
        seconds < 60 ? "\(Text.decimal(seconds, 2)) s" : Text.duration(seconds)
    }
}
