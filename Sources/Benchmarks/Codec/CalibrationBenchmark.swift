import ArgumentParser
import Foundation
import Glibc
import KVTCCalibration
import KVTCCodec

struct CalibrationBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calibration",
        abstract: "Calibrate a model of the shape of Mistral NeMo 12B on 160 000 tokens.",
        discussion: """
            40 layers of 8 heads of 128, keys and values: 81 920 elements a token. The tokens are synthetic, made while they are \
            read, with the spectrum and the correlation between layers of a real model. Then the same with 6 layers, where one \
            exact decomposition is possible: what share of the variance of held-out tokens the two stages capture of what \
            the exact subspace does. Needs about 6 GB of memory and as much disk in the temporary directory.
            """)

    @OptionGroup var options: Options

    @Option(help: "Layers of the large problem.")
    var layers = 40

    @Option(help: "Tokens of the large problem.")
    var tokens = 160 * 1024

    @Option(help: "Seed of the samples.")
    var seed: UInt64 = 1

    func run() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("kvtc-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        var report = Report()
        try compareWithExact(&report, directory.path)
        let samples = try SyntheticCache(
            layers: options.quick ? 12 : layers, heads: 8, headDim: 128, tokens: options.quick ? 20 * 2048 : tokens,
            seed: seed)
        let large = try calibrate("large", samples, exactLimit: 8192, rank: nil, directory.path, &report)
        report.add("calibration.large.elements", Double(samples.geometry.rowElements), "a token")
        report.add("calibration.large.tokens", Double(samples.tokens), "")
        report.add("calibration.large.rank", Double(large.spectra[0].count), "components")
        report.add("calibration.large.captured", 100 * captured(large), "% of held-out variance")
        try options.finish(report)
    }

    /// A sixth of the layers, or less: the exact decomposition of 12 288 elements takes minutes.
    private func compareWithExact(_ report: inout Report, _ directory: String) throws {
        let samples = try SyntheticCache(
            layers: options.quick ? 8 : 6, heads: options.quick ? 2 : 8, headDim: 128,
            tokens: options.quick ? 10 * 2048 : 20 * 2048, seed: seed)
        let rank = samples.geometry.rowElements * 36 / 100
        let exact = try calibrate("exact", samples, exactLimit: .max, rank: rank, directory, &report)
        let staged = try calibrate("staged", samples, exactLimit: 1, rank: rank, directory, &report)
        report.add("calibration.small.elements", Double(samples.geometry.rowElements), "a token")
        report.add("calibration.exact.captured", 100 * captured(exact), "% of held-out variance")
        report.add("calibration.staged.captured", 100 * captured(staged), "% of held-out variance")
        report.add(ratio: "calibration.captured_over_exact", captured(staged) / captured(exact), target: "≥ 0.99")
        for ratio in [16.0, 32] {
            report.add(
                ratio: "calibration.distortion_over_exact_at_\(Int(ratio))",
                distortion(staged, at: ratio) / distortion(exact, at: ratio))
        }
    }

    private func calibrate(
        _ name: String, _ samples: SyntheticCache, exactLimit: Int, rank: Int?, _ directory: String,
        _ report: inout Report
    ) throws -> Profile {
        let path = "\(directory)/\(name)"
        let (start, before) = (ContinuousClock.now, CalibrationBenchmark.processorSeconds)
        var (stage, stageStart) = ("", start)
        func log() {
            if !stage.isEmpty { note("\(name): \(stage), \((ContinuousClock.now - stageStart) / .seconds(1)) s") }
        }
        try Calibrator(
            samples: samples, weighting: .variance, rank: rank, exactLimit: exactLimit
        ) {
            guard $0.stage != stage else { return }
            log()
            (stage, stageStart) = ($0.stage, .now)
        }.run(writingTo: path)
        log()
        report.add("calibration.\(name).seconds", (ContinuousClock.now - start) / .seconds(1), "s")
        report.add(
            "calibration.\(name).processor_seconds", CalibrationBenchmark.processorSeconds - before,
            "s of all processors")
        report.add("calibration.\(name).memory", CalibrationBenchmark.peakMemory / 1e9, "GB at most so far")
        let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
        report.add("calibration.\(name).profile_size", Double(size) / 1e9, "GB")
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try Profile.open(path: path)
    }

    private func note(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }

    private func captured(_ profile: Profile) -> Double { profile.metadata.captured ?? .nan }

    /// From the profile's table of what to expect, between its lines.
    private func distortion(_ profile: Profile, at ratio: Double) -> Double {
        let table = profile.metadata.expectations
        guard let above = table.firstIndex(where: { $0.ratio >= ratio }), above > 0 else { return .nan }
        let (low, high) = (table[above - 1], table[above])
        let share = (ratio - low.ratio) / (high.ratio - low.ratio)
        return low.distortion * pow(high.distortion / low.distortion, share)
    }

    private static var processorSeconds: Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
        return seconds(usage.ru_utime) + seconds(usage.ru_stime)
    }

    private static var peakMemory: Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return Double(usage.ru_maxrss) * 1024
    }
}
