import ArgumentParser
import FoundationEssentials
import KVTCCalibration
import KVTCCodec

struct CalibrateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calibrate",
        abstract: "Make a profile from KV samples of a model.",
        discussion: """
            SAMPLES are safetensors files of what the model's cache holds after reading text like your users' (tensors \
            k.<layer> and v.<layer>, or c.<layer> for latents, [tokens, heads, headDim], positions; 'python -m kvtc.calibration.capture' \
            writes them). 50 000 tokens of mixed text make a good profile, and two or more tokens an element of a row: of fewer \
            you are warned. Files may be larger than memory. Each rank of tensor or pipeline parallelism is \
            calibrated from samples of its own. Needs no daemon. Memory: about twelve bytes times the square of the elements a token, \
            or about 4 GB where these are more than 24 576: the layers are then decomposed one by one, and their leading \
            components jointly.

            EXAMPLES
              kvtcctl calibrate samples-*.safetensors \\
                  --gradients gradients-*.safetensors --out model.kvtc.safetensors
              kvtcctl calibrate samples-*.safetensors \\
                  --sensitivity sensitivity.json --out model.kvtc.safetensors
              kvtcctl calibrate samples.safetensors \\
                  --published --out published.kvtc.safetensors
              kvtcctl profile show model.kvtc.safetensors
            """)

    @Argument(help: "Sample files.", completion: .file(extensions: ["safetensors"]))
    var samples: [String]

    @Option(name: [.short, .long], help: "The profile to write; it appears whole or not at all.", completion: .file())
    var out: String

    @Option(
        parsing: .upToNextOption,
        help:
            "How predictions depend on each element, as 'python -m kvtc.calibration.gradients' measured it: a third less divergence than by --sensitivity.",
        completion: .file(extensions: ["safetensors"]))
    var gradients: [String] = []

    @Option(
        help:
            "What errors in each layer cost, as 'python -m kvtc.calibration.sensitivity' measured it: half the divergence at the same ratio.",
        completion: .file(extensions: ["json"]))
    var sensitivity: String?

    @Flag(help: "The published method: keys and values apart, no weights. For comparison.")
    var published = false

    @Option(
        parsing: .unconditional,
        help: "Components to keep of a token (default: what ratios from 8 need, at most half).",
        transform: Parsed.whole(1...Int.max))
    var rank: Int?

    @Option(
        parsing: .unconditional,
        help: "Widest token, in elements, whose covariance is decomposed as a whole (default: 24576).",
        transform: Parsed.whole(1...Int.max))
    var exactLimit: Int?

    @Option(
        help: ArgumentHelp(
            "Bases, each of its share of the layers: two halve the profile and the products, and cost quality (default: 1)."
        ),
        transform: Parsed.whole(1...4096))
    var layerGroups = 1

    @Option(help: "Name of the model (default: the samples').")
    var model: String?

    @Flag(help: "Print what was made as one line of JSON.")
    var json = false

    func validate() throws {
        guard [published, sensitivity != nil, !gradients.isEmpty].count(where: \.self) <= 1 else {
            throw ValidationError(
                "--gradients, --sensitivity and --published are three ways to weigh errors: choose one.")
        }
        guard !published || layerGroups == 1 else {
            throw ValidationError("--published has a basis of keys and one of values; leave --layer-groups out.")
        }
    }

    func run() throws {
        CutFile.explain()
        do {
            var bar = ProgressBar()
            let set = try SampleSet(paths: samples)
            try MatrixLibrary.load()
            let weighting: Weighting =
                if published { .published } else if let sensitivity {
                    .sensitivity(try Sensitivity(contentsOf: sensitivity))
                } else if !gradients.isEmpty {
                    .gradients(
                        try FisherInformation(
                            SampleSet(paths: gradients, content: .gradients), geometry: set.geometry
                        ) { bar.show($0.stage, $0.fraction) })
                } else { .variance }
            let calibrator = try Calibrator(
                samples: set, weighting: weighting, model: model, rank: rank, layerGroups: layerGroups,
                exactLimit: exactLimit
            ) { bar.show($0.stage, $0.fraction) }
            announce(calibrator)
            try calibrator.run(writingTo: out)
            bar.finish()
            let profile = try Profile.open(path: out)
            if json {
                print(try jsonLine(ProfileSummary(profile, path: out)))
            } else {
                print(ProfileSummary(profile, path: out).text)
            }
        } catch let error as CalibrationError {
            complain("\(error)")
            throw ExitCode.failure
        } catch let error as CodecError {
            complain("\(error)")
            throw ExitCode.failure
        }
    }

    /// What it will take, before it begins.
    private func announce(_ calibrator: Calibrator<SampleSet>) {
        let speed = MatrixLibrary.measure()
        let threads = MatrixLibrary.threads
        let forecast = calibrator.forecast(speed: speed, threads: threads)
        if let warning = forecast.warning { complain("warning: \(warning)") }
        complain(
            "\(Text.count(UInt64(forecast.tokens))) tokens of \(Text.count(UInt64(forecast.elements))) elements: about "
                + "\(Text.duration(max(1, forecast.seconds))) on \(threads) processors that do nothing else, and "
                + "\(Text.bytes(UInt64(forecast.memory))) of memory; \(speed.text)")
    }
}
