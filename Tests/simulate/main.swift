import Foundation
import StoreSimulation

/// `deploy/simulate`: runs the simulation of the store for as long as one likes.
struct Options {
    var seeds: UInt64?
    var minutes: Double?
    var first: UInt64?
    var steps = 60
    var json: String?
    var traces = false

    static let usage = """
        usage: deploy/simulate [--seeds N | --minutes M] [--seed S] [--steps N] [--trace] [--json FILE]

        Runs the store against a simulated disk that fails, tears and lies, and a process that dies at any moment, and checks
        it against a model after every step.

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

struct Result: Encodable {
    struct Failure: Encodable { var seed: UInt64, what: String }
    var first_seed: UInt64
    var seeds: UInt64 = 0
    var steps = 0
    var restarts = 0
    var faults_injected = 0
    var faults: [String: Int] = [:]
    var failures: [Failure] = []
    var seconds = 0.0
}

let arguments = Array(CommandLine.arguments.dropFirst())
guard let options = Options(arguments) else {
    print(Options.usage)
    exit(["--help", "-h"].contains(arguments.first ?? "") ? 0 : 64)
}
let start = Date()
let count = options.minutes == nil ? options.seeds ?? 2000 : .max
let end = options.minutes.map { start + $0 * 60 } ?? .distantFuture
var result = Result(first_seed: options.first ?? UInt64.random(in: 0...1 << 40))
let isTerminal = isatty(STDERR_FILENO) == 1
@Sendable func say(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }

let trace: (@Sendable (String) -> Void)? = options.traces ? { @Sendable line in say(line + "\n") } : nil

while result.seeds < count, Date() < end {
    let seed = result.first_seed &+ result.seeds
    let report = Simulation.run(seed: seed, steps: options.steps, trace: trace)
    result.seeds += 1
    result.steps += report.steps
    result.restarts += report.restarts
    result.faults.merge(report.faults) { $0 + $1 }
    if let failure = report.failure {
        result.failures.append(.init(seed: seed, what: failure))
        say(
            "FAILED: seed \(seed), \(failure); again: deploy/simulate --seed \(seed) --seeds 1 --steps \(options.steps)\n"
        )
    }
    if isTerminal, result.seeds % 50 == 0 { say("\r\u{1B}[K\(result.seeds) seeds, \(result.failures.count) failed") }
}
if isTerminal { say("\r\u{1B}[K") }
result.faults_injected = result.faults.values.reduce(0, +)
result.seconds = (Date().timeIntervalSince(start) * 10).rounded() / 10
let kinds = result.faults.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
print(
    """
    \(result.seeds) seeds from \(result.first_seed), \(result.steps) steps, \(result.restarts) restarts in \(result.seconds) s
    \(result.faults_injected) faults: \(kinds)
    \(result.failures.isEmpty ? "every promise held" : "\(result.failures.count) seeds failed")
    """)
if let path = options.json {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
    try encoder.encode(result).write(to: URL(fileURLWithPath: path))
}
exit(result.failures.isEmpty ? 0 : 1)
