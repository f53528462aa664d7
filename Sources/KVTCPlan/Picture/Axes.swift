/// Where sizes and shares lie in a picture: sizes in doublings, shares, or what else there is, evenly from nothing.
struct Axes {
    static let (width, height) = (760.0, 400.0)

    let left = 64.0
    let right = 560.0
    let top: Double
    let bottom: Double
    /// Marks along the sides.
    let sizes: [Int]
    let shares: [Double]
    private let ends: (Double, Double)
    private let most: Double

    /// Nil without points of some size.
    /// - Parameter offset: how far below the top of the drawing the picture begins.
    init?(_ points: [(size: Int, share: Double)], ceiling: Double, offset: Double = 0) {
        (top, bottom) = (offset + 72, offset + 340)
        let all = Set(points.map(\.size)).filter { $0 > 0 }.sorted()
        guard let first = all.first, let last = all.last else { return nil }
        // As many as have room.
        let step = (all.count + 7) / 8
        sizes = all.indices.filter { $0 % step == 0 }.map { all[$0] }
        ends = (Self.doublings(first), Self.doublings(last))
        let highest = max(points.map(\.share).max() ?? 0, ceiling, 0.01)
        let unit = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].first { highest / $0 <= 6 } ?? highest
        let count = Int((highest / unit).rounded(.up))
        shares = (0...count).map { Double($0) * unit }
        most = Double(count) * unit
    }

    private static func doublings(_ bytes: Int) -> Double {
        // To the nearest thousandth or so: the highest bit, and the rest as a straight line.
        let bit = Int.bitWidth - 1 - bytes.leadingZeroBitCount
        return Double(bit) + Double(bytes) / Double(1 << bit) - 1
    }

    func x(_ size: Int) -> Double {
        guard ends.1 > ends.0 else { return (left + right) / 2 }
        return left + (right - left) * (Self.doublings(max(size, 1)) - ends.0) / (ends.1 - ends.0)
    }

    func y(_ share: Double) -> Double { bottom - (bottom - top) * share / most }

    /// Lines across, and what stands along the sides.
    func frame(_ drawing: inout SVG, size: (Int) -> String, sizes name: String, share: (Double) -> String) {
        for value in shares {
            drawing.rule((left, y(value)), (right, y(value)), class: "grid")
            drawing.text(share(value), x: left - 8, y: y(value) + 4, class: "faint end")
        }
        for value in sizes { drawing.text(size(value), x: x(value), y: bottom + 20, class: "faint middle") }
        drawing.text(name, x: (left + right) / 2, y: bottom + 42, class: "faint middle")
    }

    /// Names at the ends of lines, as far apart as they need; a color below 0 is none.
    func label(_ drawing: inout SVG, _ ends: [(name: String, color: Int, share: Double)]) {
        let ends = ends.sorted { $0.share > $1.share }
        var places: [Double] = []
        for end in ends { places.append(max(y(end.share) + 4, (places.last ?? -.infinity) + Self.lineHeight)) }
        // Below the lowest there is no room beside the sizes.
        var below = bottom + 4
        for place in places.indices.reversed() {
            places[place] = min(places[place], below)
            below = places[place] - Self.lineHeight
        }
        for (end, place) in zip(ends, places) {
            drawing.text(end.name, x: right + 10, y: place, class: end.color < 0 ? "faint" : "c\(end.color)")
        }
    }

    private static let lineHeight = 17.0
}
