import KVTCSystem

/// A plan as a drawing in SVG, light or dark as its reader's screen is: hits against RAM, a line for each coding and disk.
public struct Picture {
    private let report: PlanReport
    private let series: [Series]
    private let axes: Axes

    /// One line.
    struct Series {
        var name: String
        var color: Int
        var isDashed: Bool
        /// By RAM, ascending.
        var points: [(size: Int, share: Double)]
    }

    /// Nil where there is nothing to draw.
    public init?(_ report: PlanReport) {
        let disks = Set(report.setups.map(\.setup.disk)).sorted()
        let codings = report.codings
        series = codings.enumerated().flatMap { color, coding in
            disks.map { disk in
                let lines = report.setups.filter { $0.setup.coding == coding && $0.setup.disk == disk }
                    .sorted { $0.setup.ram < $1.setup.ram }
                let points = lines.map { (size: $0.setup.ram, share: $0.outcome.hitRatio) }
                let total = lines.last?.result.totalRatio ?? 1
                return Series(
                    name: Self.name(coding, total: total) + (disk > 0 ? " + \(Label.size(disk)) disk" : ""),
                    color: color,
                    isDashed: disk > 0, points: points)
            }
        }
        guard let axes = Axes(series.flatMap(\.points), ceiling: report.ceiling.hitRatio) else { return nil }
        self.axes = axes
        self.report = report
    }

    private static func name(_ coding: Coding, total: Double) -> String {
        switch coding {
        case .raw: "raw"
        case .lossless(let ratio): "lossless, \(Label.decimal(ratio))×"
        case .transform(let ratio): "coded \(Label.decimal(ratio))×, \(Label.decimal(total))× in all"
        }
    }

    /// The file's text.
    public var svg: String {
        let trace = report.trace
        let facts =
            "\(Label.count(trace.requests.count)) requests, \(Label.size(report.shape.tokenBytes)) a token"
            + (report.gpuMemory > 0 ? ", beside \(Label.size(report.gpuMemory)) of GPU memory" : "")
        var drawing = SVG(width: Axes.width, height: Axes.height)
        drawing.describe(
            title: "Share of prompt blocks found again, by the RAM that kvtcd has",
            text: series.map { line in
                "\(line.name): "
                    + line.points.map { "\(Label.size($0.size)) \(Label.percent($0.share))" }.joined(separator: ", ")
            }.joined(separator: "; ") + "; endless memory: \(Label.percent(report.ceiling.hitRatio)).")
        drawing.text("Share of prompt blocks found again", x: 16, y: 28, class: "title")
        drawing.text(facts, x: 16, y: 48, class: "faint")
        axes.frame(
            &drawing, size: Label.size, sizes: "RAM for caches", share: { "\(Int(($0 * 100).rounded())) %" })
        for line in series {
            let points = line.points.map { (axes.x($0.size), axes.y($0.share)) }
            drawing.line(points, color: line.color, isDashed: line.isDashed)
        }
        labels(&drawing)
        gain(&drawing)
        return drawing.text
    }

    /// Names at the ends of the lines.
    private func labels(_ drawing: inout SVG) {
        let ceiling = report.ceiling.hitRatio
        drawing.rule((axes.left, axes.y(ceiling)), (axes.right, axes.y(ceiling)), class: "ceiling")
        let ends = series.compactMap { line in line.points.last.map { (line.name, line.color, $0.share) } }
        axes.label(&drawing, ends + [("endless memory \(Label.percent(ceiling))", -1, ceiling)])
    }

    /// How many times the lowest ratio's hits the highest one has, where that tells most.
    private func gain(_ drawing: inout SVG) {
        guard let (low, high) = report.greatestGain, low.setup.disk == 0 else { return }
        let times = high.outcome.hitRatio / low.outcome.hitRatio
        guard times >= 1.5 else { return }
        let x = axes.x(low.setup.ram)
        let (top, bottom) = (axes.y(high.outcome.hitRatio) + 7, axes.y(low.outcome.hitRatio) - 7)
        drawing.rule((x, top), (x, bottom), class: "gain")
        drawing.text("\(Label.decimal(times)) times the hits", x: x + 8, y: (top + bottom) / 2, class: "strong")
    }
}

/// How numbers look in a picture.
enum Label {
    static func decimal(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10)" : "\(tenths / 10).\(tenths % 10)"
    }

    /// A whole number in groups of three digits.
    static func count(_ number: Int) -> String {
        let digits = String(number)
        return digits.enumerated().reduce(into: "") { text, digit in
            if digit.offset > 0, (digits.count - digit.offset) % 3 == 0 { text.append("\u{202F}") }
            text.append(digit.element)
        }
    }

    /// A link by its name, from the bytes a second that it carries.
    static func network(_ bytes: Double) -> String { "\(decimal(Fleet.gigabits(link: bytes))) GbE" }

    static func percent(_ share: Double) -> String { "\(decimal(share * 100)) %" }

    static func size(_ bytes: Int) -> String {
        let text = ByteSize.rounded(bytes)
        let number = text.prefix { !$0.isLetter }
        return "\(number) \(text.dropFirst(number.count))"
    }
}
