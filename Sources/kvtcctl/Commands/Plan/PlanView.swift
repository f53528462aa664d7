import KVTCPlan

/// A plan for people.
struct PlanView {
    private let report: PlanReport

    init(_ report: PlanReport) { self.report = report }

    var lines: [String] {
        facts + [""] + table + [""] + advice.flatMap { Terminal.wrapped(Terminal.shown($0), indent: 2) }
    }

    private var facts: [String] {
        let trace = report.trace
        let span = trace.seconds.map { " in \(Text.duration($0))" } ?? ""
        var facts = [
            "\(Text.count(trace.requests.count, "request"))\(span): \(Text.count(trace.inputTokens)) tokens of prompts in "
                + "\(Text.count(trace.blocks.count)) blocks of \(trace.blockTokens), \(Text.count(trace.distinctBlocks)) of them "
                + "different. A token takes \(Text.bytes(report.shape.tokenBytes)).",
            "Today \(Text.count(report.today.computedTokens)) tokens are computed"
                + (report.today.seconds.map { ", which takes \(Self.time($0))" } ?? "")
                + (report.gpuMemory > 0
                    ? "; \(Self.percent(report.today.hitRatio)) of the blocks are found in \(Text.bytes(report.gpuMemory)) of GPU memory."
                    : "."),
            "Endless memory would find \(Self.percent(report.ceiling.hitRatio)) of the blocks.",
        ]
        if let seconds = report.ceiling.seconds {
            facts[2].removeLast(); facts[2] += " and leave \(Self.time(seconds))."
        }
        return facts.flatMap { Terminal.wrapped(Terminal.shown($0), indent: 2) }
    }

    private var table: [String] {
        let hasTimes = report.today.seconds != nil
        var columns: [(String, TextTable.Side, Int)] = [
            ("CODING", .left, 0), ("TOTAL", .right, 2), ("RAM", .right, 0), ("DISK", .right, 0), ("FOUND", .right, 0),
            ("", .left, 3), ("COMPUTED", .right, 1),
        ]
        if hasTimes { columns += [("TIME", .right, 0), ("RESTORING", .right, 4)] }
        var table = TextTable(columns)
        for line in report.setups {
            let outcome = line.outcome
            let share = outcome.hitRatio / max(report.ceiling.hitRatio, .leastNormalMagnitude)
            var row = [
                Self.name(line.setup.coding), "\(Text.decimal(line.result.totalRatio, 1))×", Text.bytes(line.setup.ram),
                line.setup.disk > 0 ? Text.bytes(line.setup.disk) : "–", Self.percent(outcome.hitRatio),
                Text.bar(share, width: 20), "\(Text.count(outcome.computedTokens)) tok",
            ]
            if hasTimes {
                row += [outcome.seconds.map(Self.time) ?? "–", outcome.restoreSeconds.map(Self.time) ?? "–"]
            }
            table.add(row)
        }
        return table.lines
    }

    private var advice: [String] {
        var advice: [String] = []
        if let (low, high) = report.greatestGain {
            let times = high.result.hitRatio / low.result.hitRatio
            let place =
                Text.bytes(low.setup.ram) + (low.setup.disk > 0 ? " and \(Text.bytes(low.setup.disk)) of disk" : "")
            advice.append(
                "The same \(place) finds \(Text.decimal(times, 1)) times as much \(Self.name(high.setup.coding)) as "
                    + "\(Self.name(low.setup.coding)): \(Self.percent(high.result.hitRatio)) against "
                    + "\(Self.percent(low.result.hitRatio)).")
        }
        for (share, words) in [(0.5, "Half"), (0.9, "Nine tenths")] {
            let least = report.smallest(reaching: share).map { coding, setup in
                guard let setup else { return "\(Self.name(coding)) more than was tried" }
                let disk = setup.disk > 0 ? " and \(Text.bytes(setup.disk)) of disk" : ""
                return "\(Self.name(coding)) \(Text.bytes(setup.ram)) of RAM\(disk)"
            }
            advice.append("\(words) of what can be found beyond today takes: \(least.joined(separator: "; ")).")
        }
        let slow = report.setups.filter { line in
            guard let before = report.today.seconds, let after = line.outcome.seconds else { return false }
            return after > before
        }
        for coding in Set(slow.map(\.setup.coding)).sorted(by: { $0.ratio < $1.ratio }) {
            advice.append(
                "Restoring \(Self.name(coding)) takes longer than computing: at this rate choose a lower ratio, or decode on the GPU."
            )
        }
        return advice
    }

    static func name(_ coding: Coding) -> String {
        switch coding {
        case .raw: "raw"
        case .lossless(let ratio): "lossless \(Text.plain(ratio))×"
        case .transform(let ratio): "\(Text.plain(ratio))×"
        }
    }

    private static func percent(_ share: Double) -> String { "\(Text.decimal(share * 100, 1)) %" }

    /// Of a GPU; two units of a short time say no more than it is known to.
    private static func time(_ seconds: Double) -> String {
        seconds < 60 ? "\(Text.decimal(seconds, 1)) s" : Text.duration(seconds)
    }
}
