/// A plan for fleets as a drawing in SVG: what is found against machines, where there are several sizes, and the time to the first token
/// against the network, where there are several. Whole lines are with the shared tier, dashed ones without.
public struct FleetPicture {
    private let report: FleetReport
    private let charts: [Chart]

    /// One of the drawings.
    private struct Chart {
        var title, sizes: String
        var size: (Int) -> String
        var share: (Double) -> String
        var value: (Double) -> String
        var lines: [Line]
        var ceiling: Double?
    }

    private struct Line {
        var name: String
        var color: Int
        var isDashed: Bool
        var points: [(size: Int, share: Double)]
    }

    private static let height = Axes.height

    /// Nil where there is nothing to draw: one size of fleet and one network.
    public init?(_ report: FleetReport) {
        self.report = report
        charts = [Self.found(report), Self.times(report)].compactMap(\.self)
        if charts.isEmpty { return nil }
    }

    /// By machines, over the fastest network and with most of the shared tier.
    private static func found(_ report: FleetReport) -> Chart? {
        guard report.nodes.count > 1 else { return nil }
        let lines = report.setups.enumerated().flatMap { color, setup in
            let best = report.nodes.compactMap { report.best(nodes: $0, setup) }
            let name = name(setup.coding, best.last)
            return [
                Line(
                    name: name, color: color, isDashed: false,
                    points: best.map { ($0.fleet.nodes, $0.result.hereRatio + $0.result.fetchedRatio) }),
                Line(
                    name: "\(name), alone", color: color, isDashed: true,
                    points: best.map { ($0.fleet.nodes, $0.result.hereRatio) }),
            ]
        }
        let link = report.links.last.map(Label.network) ?? ""
        return Chart(
            title: "Share of prompt blocks found, at \(link)", sizes: "machines", size: Label.count,
            share: { "\(Int(($0 * 100).rounded())) %" }, value: Label.percent, lines: lines, ceiling: report.ceiling)
    }

    /// By network, of the largest fleet.
    private static func times(_ report: FleetReport) -> Chart? {
        guard report.links.count > 1, let nodes = report.nodes.last else { return nil }
        let lines = report.setups.enumerated().flatMap { color, setup in
            let all = report.links.compactMap { report.best(nodes: nodes, setup, link: $0) }
            let name = name(setup.coding, all.last)
            return [
                Line(
                    name: name, color: color, isDashed: false,
                    points: all.map { (Int($0.fleet.link), $0.result.shared.mean) }),
                Line(
                    name: "\(name), alone", color: color, isDashed: true,
                    points: all.map { (Int($0.fleet.link), $0.result.alone.mean) }),
            ]
        }
        return Chart(
            title: "Mean time to the first token, \(Label.count(nodes)) machines", sizes: "network of each machine",
            size: { Label.network(Double($0)) }, share: { "\(Label.decimal($0)) s" },
            value: { "\(Label.decimal($0)) s" },
            lines: lines, ceiling: nil)
    }

    private static func name(_ coding: Coding, _ line: FleetReport.Line?) -> String {
        guard let total = line?.result.totalRatio, total > 1 else { return "raw" }
        return "\(Label.decimal(coding.ratio))× (\(Label.decimal(total))×)"
    }

    /// The file's text.
    public var svg: String {
        var drawing = SVG(width: Axes.width, height: Self.height * Double(charts.count))
        drawing.describe(
            title: charts.map(\.title).joined(separator: "; "),
            text: charts.map { chart in
                chart.lines.map { line in
                    "\(line.name): "
                        + line.points.map { "\(chart.size($0.size)) \(chart.value($0.share))" }.joined(separator: ", ")
                }.joined(separator: "; ") + "."
            }.joined(separator: " "))
        for (number, chart) in charts.enumerated() { draw(chart, at: Double(number) * Self.height, &drawing) }
        return drawing.text
    }

    private func draw(_ chart: Chart, at offset: Double, _ drawing: inout SVG) {
        guard let axes = Axes(chart.lines.flatMap(\.points), ceiling: chart.ceiling ?? 0, offset: offset) else {
            return
        }
        drawing.text(chart.title, x: 16, y: offset + 28, class: "title")
        drawing.text(
            "\(Label.count(report.trace.requests.count)) requests for each \(Label.count(report.traceNodes)) machines, "
                + "\(Label.size(report.shape.tokenBytes)) a token; whole lines: shared, dashed: each machine alone",
            x: 16, y: offset + 48, class: "faint")
        axes.frame(&drawing, size: chart.size, sizes: chart.sizes, share: chart.share)
        for line in chart.lines {
            drawing.line(
                line.points.map { (axes.x($0.size), axes.y($0.share)) }, color: line.color, isDashed: line.isDashed)
        }
        var ends = chart.lines.compactMap { line in
            line.points.last.map { (name: line.name, color: line.color, share: $0.share) }
        }
        if let ceiling = chart.ceiling {
            drawing.rule((axes.left, axes.y(ceiling)), (axes.right, axes.y(ceiling)), class: "ceiling")
            ends.append(("endless memory \(Label.percent(ceiling))", -1, ceiling))
        }
        axes.label(&drawing, ends)
    }
}
