import KVTCModel

/// How pages are to be coded, as far as the policy says.
package struct CodingChoice: Hashable {
    package var mode: Mode
    package var quality: Quality
    /// Whether rows far outside of the calibration stay exact by themselves.
    package var keepsOutliers: Bool
    /// The bound on the distortion, where the page is coded for an idle session's window; nil for an ordinary coding.
    package var near: Float?

    /// For pages outside of the window.
    package init(_ policy: Policy) {
        mode = policy.mode
        keepsOutliers = policy.keepsOutliers
        quality =
            switch (policy.qualityKind, policy.distortionLimit) {
            case (.ratio, let limit?): .bounded(ratio: policy.quality, distortion: limit)
            case (.ratio, nil): .ratio(policy.quality)
            case (.distortion, let limit): .distortion(min(policy.quality, limit ?? policy.quality))
            }
        // The codec checks the figure in every mode; modes that do not use one must not trip over it.
        if !policy.mode.needsProfile { quality = .ratio(1) }
    }

    /// For pages inside the window of a session that is idle or over; nil where the policy keeps those lossless.
    package static func near(_ policy: Policy) -> CodingChoice? {
        guard let near = policy.near else { return nil }
        var choice = CodingChoice(policy)
        let bound = min(near, choice.quality.distortion ?? near)
        choice.near = bound
        choice.quality = .distortion(bound)
        return choice
    }

    /// The choice that does for whoever asks for either: lossless, the finer quantiser, the stricter bound; else this one.
    package func joined(with other: CodingChoice) -> CodingChoice {
        guard !mode.isExact, !other.mode.isExact else { return .lossless }
        var result = mode.bits >= other.mode.bits ? self : other
        if let bound = [quality.distortion, other.quality.distortion].compactMap(\.self).min() {
            guard result.mode.bits == 0 else { return .lossless }
            result.quality = result.quality.ratio.map { .bounded(ratio: $0, distortion: bound) } ?? .distortion(bound)
        }
        result.keepsOutliers = keepsOutliers || other.keepsOutliers
        return result
    }

    /// The same of any number; nil of none.
    static func joined(_ wishes: [CodingChoice?]) -> CodingChoice? {
        wishes.compactMap(\.self).reduce(nil) { $0?.joined(with: $1) ?? $1 }
    }

    /// Whether there are codings that do not do.
    package var isStrict: Bool { mode.bits > 0 || quality.distortion != nil }

    /// Whether a page that was coded by whatever choice is no worse than this one. A ratio asks for nothing.
    package func isMet(by page: CodedPage) -> Bool {
        guard !page.isExact else { return true }
        guard !mode.isExact, page.mode.bits >= mode.bits else { return false }
        guard let bound = quality.distortion else { return true }
        return page.mode.bits == 0 && page.distortion <= bound
    }

    /// The one of several near-lossless codings that keeps to all of their bounds; nil without any.
    static func strictest(_ wishes: [CodingChoice?]) -> CodingChoice? {
        wishes.compactMap(\.self).min { ($0.near ?? 0) < ($1.near ?? 0) }
    }

    /// Bounds below are refused. What a block says of its distortion leaves out the rounding of the basis to 8 bits, which
    /// takes about 0.0001; closer than this the bound would not be the truth.
    package static let leastBound: Float = 0.0005

    static let lossless = CodingChoice(Policy(mode: .lossless))
}
