import ArgumentParser

@main
struct Main: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kvtc-bench",
        abstract: "Measures kvtcd against what the hardware and others' software do with the same bytes.",
        discussion: """
            Every ratio's two sides are measured in the same run, in turns, and compared by their medians. \
            'deploy/bench' builds and runs all of it, with the restore of a real context against llama.cpp.
            """,
        subcommands: [
            CalibrationBenchmark.self,
            CodecBenchmark.self,
            EntropyBenchmark.self,
            InverseBenchmark.self,
            ReplayBenchmark.self,
            SocketBenchmark.self,
            StoreBenchmark.self,
            FixedDecode.self,
        ])
}

/// What every benchmark can be told.
struct Options: ParsableArguments {
    @Flag(help: "Fewer rounds and less data: a few seconds instead of minutes.")
    var quick = false

    @Option(help: "Also write the figures to this file as JSON.", completion: .file(extensions: ["json"]))
    var json: String?

    func finish(_ report: Report) throws {
        report.printTable()
        if let json { try report.write(to: json) }
    }
}
