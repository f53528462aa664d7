/// Writes SVG, with colours that colour-blind readers tell apart (Okabe, Ito: Color universal design, 2008) on light and on dark.
struct SVG {
    private var body = ""
    private let (width, height): (Double, Double)

    init(width: Double, height: Double) { (self.width, self.height) = (width, height) }

    private static let light = ["#6e6e6e", "#0072b2", "#b85000", "#00795a", "#9c4a7d", "#6a5acd"]
    private static let dark = ["#a8a8a8", "#56b4e9", "#e69f00", "#2fc49b", "#dd9cc0", "#b3a7ff"]

    /// What those learn who do not see it.
    mutating func describe(title: String, text: String) {
        body += "<title>\(Self.escaped(title))</title>\n<desc>\(Self.escaped(text))</desc>\n"
        body += "<rect class=\"paper\" width=\"\(Self.number(width))\" height=\"\(Self.number(height))\"/>\n"
    }

    mutating func text(_ text: String, x: Double, y: Double, class name: String) {
        body +=
            "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" class=\"\(name)\">\(Self.escaped(text))</text>\n"
    }

    mutating func rule(_ from: (Double, Double), _ to: (Double, Double), class name: String) {
        body +=
            "<path d=\"M\(Self.number(from.0)) \(Self.number(from.1))L\(Self.number(to.0)) \(Self.number(to.1))\" "
            + "class=\"\(name)\"/>\n"
    }

    /// A line through points, each marked.
    mutating func line(_ points: [(Double, Double)], color: Int, isDashed: Bool) {
        let name = "c\(color % Self.light.count)"
        let path = points.enumerated().map { "\($0 == 0 ? "M" : "L")\(Self.number($1.0)) \(Self.number($1.1))" }
        body += "<path d=\"\(path.joined())\" class=\"line \(name)\(isDashed ? " dashed" : "")\"/>\n"
        for point in points {
            body +=
                "<circle cx=\"\(Self.number(point.0))\" cy=\"\(Self.number(point.1))\" r=\"3.5\" class=\"\(name)\"/>\n"
        }
    }

    /// The whole file.
    var text: String {
        func colors(_ colors: [String]) -> String {
            colors.enumerated().map { ".c\($0){fill:\($1);stroke:\($1)}text.c\($0){stroke:none}" }.joined()
        }
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.number(width)) \(Self.number(height))" role="img">
            <style>
            text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:16px;font-weight:600}.strong{font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:5}
            .faint{fill:#59636e}.end{text-anchor:end}.middle{text-anchor:middle}.paper{fill:#fff}
            path{fill:none}.grid{stroke:#d8dee4}.ceiling{stroke:#59636e;stroke-dasharray:2 4}
            .gain{stroke:#1f2328;stroke-width:1.5}.line{stroke-width:2.5}path.line{fill:none}.dashed{stroke-dasharray:7 4}
            \(colors(Self.light))path.line{fill:none}
            @media(prefers-color-scheme:dark){text{fill:#e6edf3}.strong{stroke:#0d1117}.faint{fill:#9198a1}.paper{fill:#0d1117}.grid{stroke:#30363d}
            .ceiling{stroke:#9198a1}.gain{stroke:#e6edf3}\(colors(Self.dark))path.line{fill:none}}
            </style>
            \(body)</svg>

            """
    }

    static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
    }

    /// To a tenth of a unit.
    private static func number(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        let (whole, tenth) = (tenths.magnitude / 10, tenths.magnitude % 10)
        return "\(tenths < 0 ? "-" : "")\(whole)\(tenth == 0 ? "" : ".\(tenth)")"
    }
}
