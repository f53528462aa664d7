import KVTCCodec
import KVTCModel
import KVTCProtocol

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

    /// The choice that keeps what both promise: lossless, the finer quantiser, the stricter bound; else this one.
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

    /// Whether a page that was coded by whatever choice is no worse than this one promises. A ratio promises nothing.
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
    static let leastBound: Float = 0.0005

    static let lossless = CodingChoice(Policy(mode: .lossless))
}

/// What a coded page is to those who rely on it.
package struct CodedPage: Hashable {
    /// Rows that come back bit-identical.
    package var exact: RowSet
    package var mode: Mode
    /// As `BlockHeader.distortion`.
    package var distortion: Float

    package init(exact: RowSet, mode: Mode, distortion: Float = 0) {
        (self.exact, self.mode, self.distortion) = (exact, mode, distortion)
    }

    package init(_ header: BlockHeader) {
        self.init(
            exact: header.mode.isExact ? RowSet.full(header.tokens) : header.protected, mode: header.mode,
            distortion: header.distortion)
    }

    package var isExact: Bool { exact.count == exact.capacity }
}

/// What a session may rely on of its pages: how they are coded, and the rows that its policy keeps exact.
package struct Promise {
    package var choice: CodingChoice
    package var protection: Protection

    package init(choice: CodingChoice, protection: Protection) { (self.choice, self.protection) = (choice, protection) }

    /// Whether there is anything to keep of a page that begins at a position.
    package func asks(first: Int, tokens: Int, window: Bool) -> Bool {
        choice.isStrict || !protection.rows(first: first, tokens: tokens, window: window).isEmpty
    }

    /// Whether a page that begins at a position is no worse. `window` says whether rows count that only the window protects.
    package func isKept(by page: CodedPage, first: Int, window: Bool) -> Bool {
        guard choice.isMet(by: page) else { return false }
        let rows = protection.rows(first: first, tokens: page.exact.capacity, window: window)
        return page.exact.isSuperset(of: rows)
    }
}
