import ArgumentParser
import KVTCPlan

extension PlanCommand {
    /// RAM of each machine where none is named.
    private static let usualRAM = 64 << 30

    /// Plans machines that share.
    func planFleets(_ work: Work, _ bar: inout ProgressBar) throws {
        guard
            let planner = FleetPlanner(
                trace: work.trace, shape: work.shape, rates: work.rates, router: fleet.router ?? .random)
        else {
            complain(
                "\(trace): not every request has a time, and without them no network can be simulated. 'timestamp' (milliseconds) "
                    + "or 'created' (seconds) says it in each line.")
            throw ExitCode.failure
        }
        let setups = codings.map { Setup(ram: ram.first ?? Self.usualRAM, disk: disk.first ?? 0, coding: $0) }
        let report = try planner.plan(fleet.fleets, setups) { bar.show("simulating", 0.1 + 0.9 * $0) }
        bar.finish()
        if svg != nil, FleetPicture(report) == nil {
            complain("nothing to draw: a picture needs several --nodes or several --network")
        }
        try draw(FleetPicture(report)?.svg)
        if json {
            print(try jsonLine(FleetDocument(report, faults: work.faults)))
        } else {
            let hasRestoring = codings.allSatisfy { $0 == .raw || work.rates.restore[$0.ratio] != nil }
            Terminal.show(FleetView(report, hasRestoring: hasRestoring).lines)
        }
    }
}
