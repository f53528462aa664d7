/// How far a long run is.
public struct CalibrationProgress: Sendable {
    /// What is being done, in a few words.
    public let stage: String
    /// 0 to 1 over the whole run, by estimated work: the time left follows from it.
    public let fraction: Double
}

/// The stages of a run with the share of its work that each is expected to take.
struct WorkPlan {
    private var stages: [(name: String, work: Double)] = []
    private var done = 0.0
    private var current = 0
    private let report: (CalibrationProgress) throws -> Void

    /// - Parameter report: what it throws ends the run.
    init(report: @escaping (CalibrationProgress) throws -> Void) { self.report = report }

    /// Adds a stage, in the order in which they will come; `work` in floating-point operations of matrix products.
    mutating func add(_ name: String, work: Double) { stages.append((name, work)) }

    /// Of all stages.
    var total: Double { stages.reduce(0) { $0 + $1.work } }

    /// Reports that `fraction` of the present stage is done.
    func advance(_ fraction: Double) throws {
        let stage = stages[current]
        try report(.init(stage: stage.name, fraction: min(1, (done + fraction * stage.work) / total)))
    }

    /// Ends the present stage.
    mutating func finish() throws {
        try advance(1)
        done += stages[current].work
        current = min(current + 1, stages.count - 1)
    }
}
