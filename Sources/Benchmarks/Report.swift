import Foundation

/// What a benchmark found: figures with their units, and the ratios that follow from them.
struct Report: Encodable {
    struct Figure: Encodable {
        var value: Double
        var unit: String
    }

    private(set) var figures: [String: Figure] = [:]
    private(set) var ratios: [String: Double] = [:]
    private var order: [String] = []
    private var ratioOrder: [String] = []
    private var targets: [String: String] = [:]

    private enum CodingKeys: CodingKey { case figures, ratios }

    /// Notes a figure; names are `benchmark.side`, units what a person would write.
    mutating func add(_ name: String, _ value: Double, _ unit: String) {
        if figures.updateValue(Figure(value: value, unit: unit), forKey: name) == nil { order.append(name) }
    }

    /// Notes a ratio; `target` says what it is meant to be, such as "≥ 0.6".
    mutating func add(ratio name: String, _ value: Double, target: String? = nil) {
        if ratios.updateValue(value, forKey: name) == nil { ratioOrder.append(name) }
        targets[name] = target
    }

    func printTable() {
        let width = ((order + ratioOrder).map(\.count).max() ?? 0) + 2
        func line(_ name: String, _ value: Double, _ rest: String) {
            let number = String(format: value.magnitude >= 1000 ? "%.0f" : "%.4g", value)
            print(
                name + String(repeating: " ", count: width - name.count)
                    + String(repeating: " ", count: max(0, 10 - number.count)) + number + " " + rest)
        }
        for name in order { line(name, figures[name]!.value, figures[name]!.unit) }
        for name in ratioOrder { line(name, ratios[name]!, targets[name].map { "(aim: \($0))" } ?? "") }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(self).write(to: URL(fileURLWithPath: path))
    }
}
