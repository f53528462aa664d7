import Foundation
import StoreSimulation

/// `deploy/checks/simulate`: runs the simulation of the store for as long as one likes.
struct Options {
    var seeds: UInt64?
    var minutes: Double?
    var first: UInt64?
    var steps = 60
    var json: String?
    var traces = false

    static let usage = """
        usage: deploy/checks/simulate [--seeds N | --minutes M] [--seed S] [--steps N] [--trace] [--json FILE]
               deploy/checks/simulate sessions [--seeds N | --minutes M] [--seed S] [--json FILE]

        Runs the store against a simulated disk that fails, tears and lies, and a process that dies at any moment, and checks
        it against a model after every step. With "sessions": sessions of two tenants on a real engine with such a disk.

          --seeds N    run so many seeds (default 2000)
          --minutes M  run seeds for so long instead
          --seed S     begin with this seed (default: random); with --seeds 1 a failing seed is run again
          --steps N    steps of each seed (default 60)
          --trace      tell everything that happens, on standard error
          --json FILE  also write the result there

        Exits 0 when every promise held, 1 when one was broken (its seed is printed), 64 for wrong usage.
        """

    init?(_ arguments: [String]) {
        var rest = arguments[...]
        while let option = rest.popFirst() {
            if option == "--trace" {
                traces = true
                continue
            }
            guard let value = rest.popFirst() else { return nil }
            switch option {
            case "--seeds": seeds = UInt64(value)
            case "--minutes": minutes = Double(value)
            case "--seed": first = UInt64(value)
            case "--steps": steps = Int(value) ?? 0
            case "--json": json = value
            default: return nil
            }
        }
        guard steps > 0, seeds == nil || minutes == nil else { return nil }
    }
}

let arguments = Array(CommandLine.arguments.dropFirst())
guard let options = Options(arguments) else {
    print(Options.usage)
    exit(["--help", "-h"].contains(arguments.first ?? "") ? 0 : 64)
}
let count = options.minutes == nil ? options.seeds ?? 2000 : .max
let end = options.minutes.map { Date() + $0 * 60 } ?? .distantFuture
var totals = SimulationTotals(firstSeed: options.first ?? UInt64.random(in: 0...1 << 40))
let isTerminal = isatty(STDERR_FILENO) == 1
@Sendable func say(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }

let trace: (@Sendable (String) -> Void)? = options.traces ? { @Sendable line in say(line + "\n") } : nil

while totals.seeds < count, Date() < end {
    let seed = totals.nextSeed
    let report = Simulation.run(seed: seed, steps: options.steps, trace: trace)
    totals.add(report)
    if let failure = report.failure {
        say(
            "FAILED: seed \(seed), \(failure); again: deploy/checks/simulate --seed \(seed) --seeds 1 --steps \(options.steps)\n"
        )
    }
    if isTerminal, totals.seeds % 50 == 0 { say("\r\u{1B}[K\(totals.seeds) seeds, \(totals.failed) failed") }
}
if isTerminal { say("\r\u{1B}[K") }
print(totals.summary)
if let path = options.json { try totals.write(to: path) }
exit(totals.failed == 0 ? 0 : 1)
