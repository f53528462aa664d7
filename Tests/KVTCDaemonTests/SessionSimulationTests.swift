import Foundation
import Testing

/// The simulation of sessions. `KVTC_SIMULATED_SESSIONS=N` runs so many seeds instead, from `KVTC_SIMULATION_SEED` on; with
/// `SWIFT_DETERMINISTIC_HASHING=1` a seed replays exactly.
@Suite struct SessionSimulationTests {
    private static func number(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap(UInt64.init)
    }

    @Test func everySeedKeepsItsPromises() throws {
        let first = Self.number("KVTC_SIMULATION_SEED") ?? 1
        let count = Self.number("KVTC_SIMULATED_SESSIONS") ?? 600
        var (restarts, faults) = (0, 0)
        for seed in first..<first + count {
            do {
                let run = try SessionSimulation.run(seed: seed)
                restarts += run.restarts
                faults += run.faults
            } catch { Issue.record("seed \(seed): \(error)") }
        }
        print("\(count) simulated sessions from seed \(first): \(restarts) restarts, \(faults) faults")
        #expect(restarts > count && faults > count)
    }
}
