import Foundation
import KVTCCalibration

/// What a benchmark found: figures with their units, and the ratios that follow from them.
struct Report: Encodable {
    struct Figure: Encodable {
        var value: Double
        var unit: String
    }

    private(set) var figures: [String: Figure] = [:]
    private(set) var ratios: [String: Double] = [:]
    /// Ratios to a baseline that says little, which are not counted among the others.
    private(set) var marked: [String: Mark] = [:]

    struct Mark: Encodable {
        var value: Double
        var why: String
    }

    private var order: [String] = []
    private var ratioOrder: [String] = []
    private var markedOrder: [String] = []
    private var targets: [String: String] = [:]

    private enum CodingKeys: CodingKey { case figures, ratios, marked }

    /// Notes a figure; names are `benchmark.side`, units what a person would write.
    mutating func add(_ name: String, _ value: Double, _ unit: String) {
        if figures.updateValue(Figure(value: value, unit: unit), forKey: name) == nil { order.append(name) }
    }

    /// Notes a ratio; `target` says what it is meant to be, such as "≥ 0.6".
    mutating func add(ratio name: String, _ value: Double, target: String? = nil) {
        if ratios.updateValue(value, forKey: name) == nil { ratioOrder.append(name) }
        targets[name] = target
    }

    /// Notes a ratio to a matrix product: where the library's kernels are far below what the processor can do, to beat them
    /// is no merit, and the ratio is marked and does not count.
    mutating func add(ratio name: String, _ value: Double, target: String?, against product: MatrixLibrary.Speed) {
        guard product.isWeak else { return add(ratio: name, value, target: target) }
        if marked.updateValue(Mark(value: value, why: product.text), forKey: name) == nil { markedOrder.append(name) }
    }

    /// Notes which kernels multiply, and how fast.
    mutating func add(_ product: MatrixLibrary.Speed) {
        add("matrix.\(product.kernels)", product.gflops, "GFLOP/s of a thread")
        add("matrix.peak", product.peakGflops, "GFLOP/s of a thread")
        add("matrix.share", product.share, "of the processor's peak")
    }

    func printTable() {
        let width = ((order + ratioOrder + markedOrder).map(\.count).max() ?? 0) + 2
        func line(_ name: String, _ value: Double, _ rest: String) {
            let number = String(format: value.magnitude >= 1000 ? "%.0f" : "%.4g", value)
            print(
                name + String(repeating: " ", count: width - name.count)
                    + String(repeating: " ", count: max(0, 10 - number.count)) + number + " " + rest)
        }
        for name in order { line(name, figures[name]!.value, figures[name]!.unit) }
        for name in ratioOrder { line(name, ratios[name]!, targets[name].map { "(aim: \($0))" } ?? "") }
        for name in markedOrder { line(name, marked[name]!.value, "(does not count: \(marked[name]!.why))") }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(self).write(to: URL(fileURLWithPath: path))
    }
}
