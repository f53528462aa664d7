import Foundation
import StoreSimulation
import Testing

/// The simulation of sessions. `deploy/checks/simulate sessions` runs this test with other seeds, or for so many minutes; it
/// says so in the environment.
@Suite struct SessionSimulationTests {
    private static func setting(_ name: String) -> String? {
        ProcessInfo.processInfo.environment["KVTC_SIMULATED_" + name]
    }

    @Test func everySeedKeepsItsPromises() throws {
        let minutes = Self.setting("MINUTES").flatMap(Double.init)
        let count = minutes == nil ? Self.setting("SESSIONS").flatMap(UInt64.init) ?? 600 : .max
        let end = minutes.map { Date() + $0 * 60 } ?? .distantFuture
        var totals = SimulationTotals(firstSeed: Self.setting("SEED").flatMap(UInt64.init) ?? 1)
        while totals.seeds < count, Date() < end {
            let seed = totals.nextSeed
            let report = SessionSimulation.run(seed: seed)
            totals.add(report)
            if let failure = report.failure {
                Issue.record("\(failure); again: deploy/checks/simulate sessions --seed \(seed) --seeds 1")
            }
        }
        print("sessions: \(totals.summary)")
        if totals.seeds >= 100 { #expect(totals.restarts > totals.seeds && totals.faultsInjected > totals.seeds) }
        if let path = Self.setting("REPORT") { try totals.write(to: path) }
    }
}
