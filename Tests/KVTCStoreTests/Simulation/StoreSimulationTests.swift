import StoreSimulation
import Testing

/// The simulation that `deploy/checks/simulate` runs for longer.
@Suite struct StoreSimulationTests {
    /// Each argument stands for a hundred seeds.
    @Test(arguments: 0..<20 as Range<UInt64>) func aHundredSeeds(block: UInt64) {
        for seed in block * 100..<block * 100 + 100 {
            let report = Simulation.run(seed: seed)
            if let failure = report.failure {
                Issue.record("\(failure); again: deploy/checks/simulate --seed \(seed) --seeds 1")
            }
        }
    }

    @Test func faultsOfEveryKindHappen() {
        let kinds: Set = [
            "EIO", "ENOSPC", "crash", "dropped write", "failed write that landed", "flipped bit",
            "misdirected write", "short read", "short write", "torn write",
        ]
        var faults: Set<String> = []
        for seed in 0..<400 as Range<UInt64> where faults != kinds {
            faults.formUnion(Simulation.run(seed: seed).faults.keys)
        }
        #expect(faults == kinds)
    }
}
