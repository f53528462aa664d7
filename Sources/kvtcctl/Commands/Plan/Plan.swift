import ArgumentParser
import FoundationEssentials
import KVTCPlan
import KVTCStore

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Say from a trace of requests what kvtcd would save, and how much memory to buy.",
        discussion: """
            Replays the trace against the daemon's own store, once for each size of RAM and disk and each ratio: what share of \
            the prompts' blocks would be found, what is left to compute, how long that takes, and what the least memory is \
            for it. A block counts as found if all before it in its prompt are. Needs no daemon and no GPU.

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
        let planner = Planner(
            trace: reader.trace,
            shape: PageShape(tokenBytes: shape.tokenBytes, sink: sink, window: window), gpuMemory: gpuMemory,
            rates: times.rates(shape))
        let report: PlanReport
        do throws(StoreError) {
            report = try planner.plan(setups) { bar.show("replaying", 0.1 + 0.9 * $0) }
        } catch {
            complain("the store can't be had: \(error)")
            throw ExitCode.failure
        }
        bar.finish()
        if let svg { try draw(report, svg) }
        if json {
            print(try jsonLine(PlanDocument(report, faults: file.faults)))
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
        let ratio = self.ratio.isEmpty ? [1, 2, 16, 45] : Set(self.ratio).sorted()
        return ratio.flatMap { ratio in
            disk.flatMap { disk in ram.map { Setup(ram: $0, disk: disk, coding: Coding(ratio: Double(ratio))) } }
        }
    }

    private func draw(_ report: PlanReport, _ path: String) throws {
        guard let picture = Picture(report) else { return }
        do { try Data(picture.svg.utf8).write(to: URL(fileURLWithPath: path), options: .atomic) } catch {
            complain("\(path): can't be written")
            throw ExitCode.failure
        }
    }
}
