import ArgumentParser
import KVTCPlan

/// What times are worked out from.
struct RateOptions: ParsableArguments {
    @Option(
        parsing: .unconditional, help: "Tokens of prompts that the engine computes a second; gives times.",
        transform: Parsed.number(0.001...1e9))
    var prefillTokensPerSecond: Double?

    @Option(
        parsing: .unconditional,
        help: "Instead: the model's parameters that a token goes through, such as 8.03e9, for times from --gpu-tflops.",
        transform: Parsed.number(1...1e14))
    var parameters: Double?

    @Option(
        parsing: .unconditional,
        help: "Operations that the GPU reaches in prefill, in 10^12 a second: about half of the data sheet's.",
        transform: Parsed.number(0.001...1e6))
    var gpuTflops: Double?

    @Option(
        parsing: .unconditionalSingleValue,
        help:
            "Tokens a second that come back coded at a ratio, as 16=600; 'kvtcctl bench' times one thread. May be repeated.",
        transform: RateOptions.pair)
    var restore: [Pair] = []

    @Option(
        parsing: .unconditional, help: "Bytes a second that the disk reads, such as 3GiB.",
        transform: Parsed.size(1...1 << 50))
    var diskBandwidth: Int?

    struct Pair: Sendable { var ratio, tokensPerSecond: Double }

    private static func pair(_ text: String) throws -> Pair {
        let parts = text.split(separator: "=", omittingEmptySubsequences: false).map { Double($0) }
        guard parts.count == 2, let ratio = parts[0], let rate = parts[1], (1...1000).contains(ratio), rate > 0,
            rate.isFinite
        else { throw ValidationError("a ratio and tokens a second are needed, such as 16=600") }
        return Pair(ratio: ratio, tokensPerSecond: rate)
    }

    func validate() throws {
        guard (parameters == nil) == (gpuTflops == nil) else {
            throw ValidationError("--parameters and --gpu-tflops give times together only.")
        }
        guard prefillTokensPerSecond == nil || gpuTflops == nil else {
            throw ValidationError("--prefill-tokens-per-second is measured, --gpu-tflops a formula: choose one.")
        }
        guard restore.isEmpty && diskBandwidth == nil || prefillTokensPerSecond != nil || gpuTflops != nil else {
            throw ValidationError(
                "Times of restoring mean nothing without those of computing: add --prefill-tokens-per-second.")
        }
    }

    func rates(_ shape: CacheShape) -> Rates {
        var prefill = prefillTokensPerSecond.map { Rates.Prefill.tokensPerSecond($0) }
        if let parameters, let gpuTflops {
            prefill = .operations(
                parameters: parameters, attention: Double(shape.attention), perSecond: gpuTflops * 1e12)
        }
        return Rates(
            prefill: prefill,
            restore: Dictionary(restore.map { ($0.ratio, $0.tokensPerSecond) }, uniquingKeysWith: { $1 }),
            diskBytesPerSecond: diskBandwidth.map(Double.init))
    }
}
