import Glibc
import KVTCCodec

/// How one page came out of its coder, against what was asked.
package struct CodingOutcome: Hashable, Sendable {
    /// Rows that stayed exact without being protected: outliers, NaN and infinities, values that the mode cannot code.
    package var outlierRows = 0
    /// Whether the limit on the distortion took from the ratio.
    package var isLimited = false
    /// Whether the page is lossless, since no coding was within the limit or smaller.
    package var isLossless = false
    /// Whether it is a near-lossless coding of a window.
    package var isNear = false
    /// Natural logarithm of its distortion over the one that the profile expects at its ratio; nil where that says nothing.
    package var excess: Double?

    /// An outcome with nothing to tell.
    package init() {}

    /// What a block's header says; nil where lossless was what was asked for.
    package init?(_ header: BlockHeader, plan: EncodePlan) {
        guard !plan.choice.mode.isExact else { return nil }
        isLossless = header.mode.isExact
        guard !isLossless else { return }
        outlierRows = header.protected.count - plan.protected.count
        isNear = plan.choice.near != nil
        let ratio = Double(header.codedRawBytes) / Double(max(header.codedStoredBytes, 1))
        // Without the limit a block is never larger than the ratio allows; a percent less is not worth counting.
        if case .bounded(let asked, _) = plan.choice.quality { isLimited = ratio < 0.99 * Double(asked) }
        // The expectations are the transform coder's, for pages of more than a few rows in two bytes a number.
        guard header.mode == .transform, header.tokens - header.protected.count >= 16, header.distortion > 0,
            let profile = plan.context.codec.profile,
            let expected = profile.metadata.expectedDistortion(ratio: ratio * 2 / Double(header.element.bytes))
        else { return }
        excess = log(Double(header.distortion) / expected)
    }
}

/// How pages came out of their coder, in sum.
package struct CodingTally: Hashable, Sendable {
    package private(set) var outlierRows: UInt64 = 0
    package private(set) var limited: UInt64 = 0
    package private(set) var lossless: UInt64 = 0
    package private(set) var near: UInt64 = 0

    package init() {}

    package mutating func add(_ outcome: CodingOutcome) {
        outlierRows += UInt64(max(0, outcome.outlierRows))
        limited += outcome.isLimited ? 1 : 0
        lossless += outcome.isLossless ? 1 : 0
        near += outcome.isNear ? 1 : 0
    }

    static func += (sum: inout CodingTally, more: CodingTally) {
        sum.outlierRows += more.outlierRows
        sum.limited += more.limited
        sum.lossless += more.lossless
        sum.near += more.near
    }
}

/// How far a session's pages lie from what its profile promises, as texts do that are unlike those calibrated on.
package struct Drift: Hashable, Sendable {
    /// Pages before which nothing is said.
    package static let fewest = 8
    /// About as many pages count, so that a change of subject shows.
    static let span = 32
    /// A factor above this is an alarm. With a profile calibrated on manuals (SmolLM2-135M, 16× and 45×): other manuals 0.7,
    /// program text 1.1 to 1.7, tokens drawn at random 1.6 to 1.7, Japanese 2.7 to 3.2.
    package static let alarm = 1.5

    /// Pages that were compared.
    package private(set) var pages = 0
    private var mean = 0.0
    private var hasAlarmed = false

    package init() {}

    /// Distortion over what is expected, as a geometric mean; nil without a page.
    package var factor: Double? { pages == 0 ? nil : exp(mean) }

    /// Whether the profile no longer fits.
    package var isAlarming: Bool { pages >= Drift.fewest && exp(mean) > Drift.alarm }

    /// Adds a page's ``CodingOutcome/excess``; true when that raises the session's first alarm.
    package mutating func add(_ excess: Double?) -> Bool {
        guard let excess else { return false }
        pages += 1
        mean += (excess - mean) / Double(min(pages, Drift.span))
        defer { hasAlarmed = hasAlarmed || isAlarming }
        return isAlarming && !hasAlarmed
    }
}
