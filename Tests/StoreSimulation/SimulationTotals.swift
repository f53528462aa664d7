import Foundation

/// What many seeds of a simulation came to; as JSON it is the report of `deploy/checks/simulate`.
package struct SimulationTotals: Encodable {
    private struct Failure: Encodable { var seed: UInt64, what: String }

    private let start = Date()
    private let firstSeed: UInt64
    package private(set) var seeds: UInt64 = 0
    private var steps = 0
    package private(set) var restarts = 0
    private var faults: [String: Int] = [:]
    private var failures: [Failure] = []

    private enum CodingKeys: String, CodingKey {
        case firstSeed = "first_seed", faultsInjected = "faults_injected"
        case seeds, steps, restarts, faults, failures, seconds
    }

    package init(firstSeed: UInt64) { self.firstSeed = firstSeed }

    /// The seed to run next.
    package var nextSeed: UInt64 { firstSeed &+ seeds }
    package var faultsInjected: Int { faults.values.reduce(0, +) }
    package var failed: Int { failures.count }
    private var seconds: Double { (Date().timeIntervalSince(start) * 10).rounded() / 10 }

    /// Counts what ``nextSeed`` came to.
    package mutating func add(_ report: Simulation.Report) {
        if let what = report.failure { failures.append(Failure(seed: nextSeed, what: what)) }
        seeds += 1
        steps += report.steps
        restarts += report.restarts
        faults.merge(report.faults) { $0 + $1 }
    }

    /// For people.
    package var summary: String {
        let kinds = faults.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        return """
            \(seeds) seeds from \(firstSeed), \(steps) steps, \(restarts) restarts in \(seconds) s
            \(faultsInjected) faults: \(kinds)
            \(failures.isEmpty ? "every promise held" : "\(failures.count) seeds failed")
            """
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(firstSeed, forKey: .firstSeed)
        try container.encode(seeds, forKey: .seeds)
        try container.encode(steps, forKey: .steps)
        try container.encode(restarts, forKey: .restarts)
        try container.encode(faultsInjected, forKey: .faultsInjected)
        try container.encode(faults, forKey: .faults)
        try container.encode(failures, forKey: .failures)
        try container.encode(seconds, forKey: .seconds)
    }

    /// Writes the report.
    package func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        try encoder.encode(self).write(to: URL(fileURLWithPath: path))
    }
}
