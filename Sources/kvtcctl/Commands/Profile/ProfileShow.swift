import ArgumentParser
import Glibc
import KVTCCodec
import KVTCProtocol

struct ProfileShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show what is in a profile file: geometry, spectrum, what to expect.",
        discussion: """
            Needs no daemon. Ratio and distortion were measured on tokens that the basis was not made from.

            EXAMPLES
              kvtcctl profile show model.kvtc.safetensors
              kvtcctl profile show --json model.kvtc.safetensors
            """)

    @Argument(help: "The profile.", completion: .file(extensions: ["safetensors"]))
    var file: String

    @Flag(help: "Print one line of JSON.")
    var json = false

    func run() throws {
        do {
            let summary = ProfileSummary(try Profile.open(path: file), path: file)
            print(json ? try jsonLine(summary) : summary.text)
        } catch let error as CodecError {
            complain("\(error)")
            throw ExitCode.failure
        }
    }
}

/// What people want to know of a profile.
struct ProfileSummary: Encodable {
    let id, file, model, weighting: String
    /// Digest of the weights whose cache it was calibrated on.
    @OrNull private(set) var weights: String?
    /// Nil for a whole model.
    @OrNull private(set) var rank: ModelRank?
    let layers, rowElements, calibrationTokens, heldOutTokens: Int
    /// Share of the held-out variance that the bases span.
    @OrNull private(set) var captured: Double?
    let bases: [ProfileMetadata.Basis]
    let expectations: [ProfileMetadata.Expectation]
    /// Standard deviation of components 1, 2, 4, 8, … of each basis.
    let spectrum: [[Double]]

    init(_ profile: Profile, path: String) {
        id = "\(profile.id)"
        file = path
        model = profile.model
        weighting = profile.metadata.weighting
        weights = profile.metadata.weights
        rank = profile.metadata.rank
        layers = profile.geometry.layers
        rowElements = profile.geometry.rowElements
        calibrationTokens = profile.metadata.calibrationTokens
        heldOutTokens = profile.metadata.heldOutTokens
        captured = profile.metadata.captured
        bases = profile.metadata.bases
        expectations = profile.metadata.expectations
        spectrum = profile.spectra.map { sigmas in
            sequence(first: 1) { $0 * 2 }.prefix { $0 <= sigmas.count }.map { sigmas[$0 - 1] }
        }
    }

    var text: String {
        var lines = [
            "profile      \(id)", "model        \(model.escapedForDisplay)" + (rank.map { ", \($0)" } ?? ""),
            "geometry     \(layers) layers, \(rowElements) elements a token",
            "calibrated   on \(Text.count(UInt64(calibrationTokens))) tokens, \(Text.count(UInt64(heldOutTokens))) held out, "
                + "errors weighed by \(weighting.escapedForDisplay)",
        ]
        if let weights { lines.append("weights      \(weights.escapedForDisplay)") }
        if let captured { lines.append("captured     \(Text.decimal(100 * captured, 2)) % of their variance") }
        for (index, basis) in bases.enumerated() {
            lines.append(
                "basis \(index)      elements "
                    + basis.ranges.map { "\($0.lowerBound)–\($0.upperBound - 1)" }.joined(separator: ", ")
                    + "; \(basis.rank) components, "
                    + "\(basis.digits - basis.rank) of them in 16 bits")
        }
        for (index, sigmas) in spectrum.enumerated() {
            lines.append("")
            lines.append("spectrum of basis \(index) (standard deviation of components 1, 2, 4, …)")
            let top = sigmas.map { max($0, 1e-9) }.max() ?? 1
            for (power, sigma) in sigmas.enumerated() {
                // Sixteen octaves over the width of the bar.
                let height = 1 + log2(max(sigma, 1e-9) / top) / 16
                let number = "\(1 << power)"
                lines.append(
                    "  " + String(repeating: " ", count: max(0, 6 - number.count)) + number + "  "
                        + Text.bar(height, width: 32) + " " + Text.decimal(sigma, 3))
            }
        }
        lines.append("")
        var table = TextTable([("RATIO", .right), ("DISTORTION", .right), ("COMPONENTS", .right)])
        for line in shown {
            table.add([Text.decimal(line.ratio, 1), Text.decimal(line.distortion, 4), "\(line.rank)"])
        }
        lines = lines.flatMap { Terminal.wrapped(Terminal.shown($0), indent: 13) }
        return (lines + table.lines).joined(separator: "\n")
    }

    /// About a dozen lines of the table, evenly in octaves.
    private var shown: [ProfileMetadata.Expectation] {
        var last = 0.0
        return expectations.filter { line in
            guard line.ratio >= last * 1.3 else { return false }
            last = line.ratio
            return true
        }
    }
}
