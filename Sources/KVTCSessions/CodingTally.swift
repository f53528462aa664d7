import Glibc
import KVTCCodec
import KVTCModel

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
        self.init(header, plan.choice, protected: plan.protected, plan.context)
    }

    /// The same of a block that came of a choice, with these rows protected.
    package init?(_ header: BlockHeader, _ choice: CodingChoice, protected: RowSet, _ context: CodingContext) {
        guard !choice.mode.isExact else { return nil }
        isLossless = header.mode.isExact
        guard !isLossless else { return }
        outlierRows = header.protected.count - protected.count
        isNear = choice.near != nil
        let ratio = Double(header.codedRawBytes) / Double(max(header.codedStoredBytes, 1))
        // Without the limit a block is never larger than the ratio allows; a percent less is not worth counting.
        if case .bounded(let asked, _) = choice.quality { isLimited = ratio < 0.99 * Double(asked) }
        // The expectations are the transform coder's, for pages of more than a few rows in two bytes a number.
        guard header.mode == .transform, header.tokens - header.protected.count >= 16, header.distortion > 0,
            let profile = context.codec.profile,
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

    package static func += (sum: inout CodingTally, more: CodingTally) {
        sum.outlierRows += more.outlierRows
        sum.limited += more.limited
        sum.lossless += more.lossless
        sum.near += more.near
    }
}
