import ArgumentParser
import FoundationEssentials
import KVTCPlan
import KVTCStore

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract:
            "Say from a trace of requests what kvtcd would save, and how much memory to buy; of machines that share, too.",
        discussion: """
            Replays the trace against the daemon's own store, once for each size of RAM and disk and each ratio: what share of \
            the prompts' blocks would be found, what is left to compute, how long that takes, and what the least memory is \
            for it. A block counts as found if all before it in its prompt are. Needs no daemon and no GPU.

            With --nodes so many machines behind a router, each with such RAM and disk: what each finds alone, what they find \
            together through a tier that they share ([shared] in kvtcd.toml), how long first tokens take, and what network and \
            memory that needs.

            TRACES, one request a line; each line says by itself what it is
              Mooncake's form  {"timestamp", "input_length", "output_length", "hash_ids"}
              OpenAI's form    {"messages"} or {"prompt"}, text or tokens, perhaps under
                               "body"; times from "timestamp" or "created"
              vLLM's log       of VLLM_LOGGING_LEVEL=DEBUG vllm serve
                               --enable-log-requests, without --max-log-len
              SGLang's log     of --log-requests --log-requests-level 3, text or json
            Neither engine logs prompts by default. Other lines of a log are passed over. A line that is wrong is named, passed \
            over and counted, unless --strict is given. The daemon's counters ('kvtcctl status') say how often it hits with the \
            memory that it has, not with what it might have.

            EXAMPLES
              kvtcctl plan trace.jsonl --model Llama-3.1-8B-Q4_K_M.gguf
              kvtcctl plan trace.jsonl --model Llama-3.1-8B/config.json
              zcat trace.jsonl.gz | kvtcctl plan - --token-bytes 128KiB --svg plan.svg
              kvtcctl plan vllm.log --layers 32 --kv-heads 8 --head-dim 128 \\
                  --gpu-memory 40GiB --prefill-tokens-per-second 30000 --restore 16=9000
              kvtcctl plan trace.jsonl --token-bytes 128KiB --ratio 16 --ram 64GiB \\
                  --disk 0 --disk 1TiB --disk-bandwidth 5GiB
              kvtcctl plan trace.jsonl --model Llama-3.1-8B/config.json --ram 64GiB \\
                  --parameters 8.03e9 --gpu-tflops 500 --nodes 3 --network 10gbe,25gbe
            """)

    @Argument(help: "The trace, or - for standard input.", completion: .file())
    var trace: String

    @OptionGroup(title: "The model") var model: ModelOptions

    @Option(
        parsing: .unconditionalSingleValue,
        help: "RAM for caches; may be repeated (default: 16GiB to 512GiB in doublings).",
        transform: Parsed.size(1 << 20...1 << 50))
    var ram: [Int] = []

    @Option(
        parsing: .unconditionalSingleValue, help: "Disk for caches, 0 for none; may be repeated (default: 0).",
        transform: Parsed.size(0...1 << 50))
    var disk: [Int] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help:
            "Ratio: 1 raw, up to 2 lossless, above coded with sinks and window exact; may be repeated (default: 1, 2, 16, 45).",
        transform: Parsed.ratio)
    var ratio: [Float] = []

    @Option(
        parsing: .unconditional, help: "Tokens at the beginning that stay exact.", transform: Parsed.whole(0...1 << 20))
    var sink = 4

    @Option(parsing: .unconditional, help: "Tokens at the end that stay exact.", transform: Parsed.whole(0...1 << 20))
    var window = 128

    @Option(
        parsing: .unconditional,
        help:
            "GPU memory that is left for caches beside the weights, as engines log it: what it finds by itself is today's share.",
        transform: Parsed.size(0...1 << 50))
    var gpuMemory = 0

    @OptionGroup(title: "Times") var times: RateOptions

    @OptionGroup(title: "Machines that share") var fleet: FleetOptions

    @Option(
        parsing: .unconditional, help: "Tokens of a block of the trace: 512 in Mooncake's.",
        transform: Parsed.whole(1...1 << 16))
    var blockTokens = 512

    @Option(
        parsing: .unconditional, help: "Bytes of text that a token stands for, where a trace has no tokens.",
        transform: Parsed.number(0.5...64))
    var bytesPerToken = 4.0

    @Flag(help: "Stop at the first line that is wrong.")
    var strict = false

    @Flag(help: "Print one line of JSON; 'man kvtcctl' lists its members.")
    var json = false

    @Option(help: "Also draw hits against RAM into this file.", completion: .file(extensions: ["svg"]))
    var svg: String?

    func validate() throws {
        guard fleet.nodes != nil else { return }
        guard times.prefillTokensPerSecond != nil || times.gpuTflops != nil else {
            throw ValidationError(
                "With --nodes, whether to fetch or to compute depends on how fast that is: add --prefill-tokens-per-second, or --parameters and "
                    + "--gpu-tflops.")
        }
        guard ram.count <= 1, disk.count <= 1 else {
            throw ValidationError("With --nodes all machines are alike: give --ram and --disk once.")
        }
        guard gpuMemory == 0 else {
            throw ValidationError("With --nodes only what kvtcd finds is counted: leave out --gpu-memory.")
        }
    }

    func run() throws {
        let shape = try model.shape()
        var bar = ProgressBar()
        defer { bar.finish() }
        var file = TraceFile(path: trace, isStrict: strict)
        var reader = TraceReader(blockTokens: blockTokens, bytesPerToken: bytesPerToken)
        do throws(TraceFile.Unreadable) {
            try file.read(into: &reader) { bar.show("reading", 0.1 * $0) }
        } catch { throw ExitCode.failure }
        bar.finish()
        if file.faults > 0 {
            complain("\(trace): \(Text.count(file.faults, "line")) of \(Text.count(reader.lines)) passed over as wrong")
        }
        guard !reader.trace.requests.isEmpty else {
            complain(
                "\(trace): no request with a prompt in \(Text.count(reader.lines, "line")). \(Self.advice(reader))")
            throw ExitCode.failure
        }
        if reader.withoutPrompt > 0 {
            complain("\(trace): \(Text.count(reader.withoutPrompt, "request")) without a prompt passed over")
        }
        let work = Work(
            trace: reader.trace, faults: file.faults, rates: times.rates(shape),
            shape: PageShape(tokenBytes: shape.tokenBytes, sink: sink, window: window))
        do {
            try fleet.nodes == nil ? planMachine(work, &bar) : planFleets(work, &bar)
        } catch let error as StoreError {
            complain("the store can't be had: \(error)")
            throw ExitCode.failure
        }
    }

    /// What was read, and what is asked of it.
    struct Work {
        var trace: Trace
        /// Lines that were wrong.
        var faults: Int
        var rates: Rates
        var shape: PageShape
    }

    private func planMachine(_ work: Work, _ bar: inout ProgressBar) throws {
        let planner = Planner(trace: work.trace, shape: work.shape, gpuMemory: gpuMemory, rates: work.rates)
        let report = try planner.plan(setups) { bar.show("replaying", 0.1 + 0.9 * $0) }
        bar.finish()
        try draw(Picture(report)?.svg)
        if json {
            print(try jsonLine(PlanDocument(report, faults: work.faults)))
        } else {
            Terminal.show(PlanView(report).lines)
        }
    }

    private static func advice(_ reader: TraceReader) -> String {
        if reader.withoutPrompt > 0 {
            return
                "The log has \(Text.count(reader.withoutPrompt, "request")) without: engines log prompts only when told so "
                + "('kvtcctl plan --help' says how)."
        }
        return "'kvtcctl plan --help' shows what a trace looks like."
    }

    private var setups: [Setup] {
        let ram = self.ram.isEmpty ? (4...9).map { 1 << (30 + $0) } : Set(self.ram).sorted()
        let disk = self.disk.isEmpty ? [0] : Set(self.disk).sorted()
        return codings.flatMap { coding in
            disk.flatMap { disk in ram.map { Setup(ram: $0, disk: disk, coding: coding) } }
        }
    }

    var codings: [Coding] {
        (ratio.isEmpty ? [1, 2, 16, 45] : Set(ratio).sorted()).map { Coding(ratio: Double($0)) }
    }

    /// Writes the picture that was asked for, if there is anything to draw.
    func draw(_ picture: String?) throws {
        guard let svg, let picture else { return }
        do { try Data(picture.utf8).write(to: URL(fileURLWithPath: svg)) } catch {
            complain("\(svg): can't be written")
            throw ExitCode.failure
        }
    }
}
