/// Where sizes and shares lie in the picture: RAM in doublings, shares evenly from nothing.
struct Axes {
    static let (width, height) = (760.0, 400.0)

    let left = 64.0
    let right = 560.0
    let top = 72.0
    let bottom = 340.0
    /// Marks along the sides.
    let sizes: [Int]
    let shares: [Double]
    private let ends: (Double, Double)
    private let most: Double

    /// Nil without points of some size.
    init?(_ points: [(ram: Int, ratio: Double)], ceiling: Double) {
        let all = Set(points.map(\.ram)).filter { $0 > 0 }.sorted()
        guard let first = all.first, let last = all.last else { return nil }
        // As many as have room.
        let step = (all.count + 7) / 8
        sizes = all.indices.filter { $0 % step == 0 }.map { all[$0] }
        ends = (Self.doublings(first), Self.doublings(last))
        let highest = max(points.map(\.ratio).max() ?? 0, ceiling, 0.01)
        let unit = [0.01, 0.02, 0.05, 0.1, 0.2].first { highest / $0 <= 6 } ?? 0.2
        let count = Int((highest / unit).rounded(.up))
        shares = (0...count).map { Double($0) * unit }
        most = Double(count) * unit
    }

    private static func doublings(_ bytes: Int) -> Double {
        // To the nearest thousandth or so: the highest bit, and the rest as a straight line.
        let bit = Int.bitWidth - 1 - bytes.leadingZeroBitCount
        return Double(bit) + Double(bytes) / Double(1 << bit) - 1
    }

    func x(_ ram: Int) -> Double {
        guard ends.1 > ends.0 else { return (left + right) / 2 }
        return left + (right - left) * (Self.doublings(max(ram, 1)) - ends.0) / (ends.1 - ends.0)
    }

    func y(_ share: Double) -> Double { bottom - (bottom - top) * share / most }
}
