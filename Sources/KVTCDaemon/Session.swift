import KVTCCodec
import KVTCProtocol
import KVTCStore

/// What it takes to code pages of one shape; shared by the sessions that have that shape and the jobs of their pages.
package final class CodingContext: Sendable {
    /// Codes and decodes.
    package let codec: PageCodec
    /// How pages lie in the worker's memory.
    package let layout: PageLayout

    /// A context for pages of a codec's geometry in a layout.
    package init(codec: PageCodec, layout: PageLayout) {
        self.codec = codec
        self.layout = layout
    }
}

/// How pages are to be coded, as far as the policy says.
package struct CodingChoice: Hashable {
    package var mode: CodecMode
    package var quality: Quality
    /// Whether rows far outside of the calibration stay exact by themselves.
    package var keepsOutliers: Bool
    /// The bound on the distortion, where the page is coded for an idle session's window; nil for an ordinary coding.
    package var near: Float?

    /// For pages outside of the window.
    package init(_ policy: WirePolicy) {
        mode = CodecMode(rawValue: policy.mode.rawValue) ?? .lossless
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
    package static func near(_ policy: WirePolicy) -> CodingChoice? {
        guard let near = policy.near else { return nil }
        var choice = CodingChoice(policy)
        let bound = min(near, choice.quality.distortion ?? near)
        choice.near = bound
        choice.quality = .distortion(bound)
        return choice
    }

    /// The one of several near-lossless codings that keeps to all of their bounds; nil without any.
    static func strictest(_ wishes: [CodingChoice?]) -> CodingChoice? {
        wishes.compactMap(\.self).min { ($0.near ?? 0) < ($1.near ?? 0) }
    }

    /// Bounds below are refused. What a block says of its distortion leaves out the rounding of the basis to 8 bits, which
    /// takes about 0.0001; closer than this the bound would not be the truth.
    static let leastBound: Float = 0.0005

    static let lossless = CodingChoice(WirePolicy(mode: .lossless))
}

/// One page as a session sees it.
package struct SessionPage: Hashable {
    package var key: StoreKey
    package var first: Int
    package var tokens: Int
    package var end: Int { first + tokens }
}

/// One token stream.
package struct Session {
    package let id: UInt32
    package let tenant: UInt32
    package let connection: UInt64
    package let name: String
    package let context: CodingContext
    package let namespace: PageNamespace
    package let pageTokens: Int
    package let tokenBytes: Int
    package var policy: WirePolicy
    /// By position.
    package var pages: [SessionPage] = []
    /// The position after the last token pushed.
    package var tokens = 0
    /// Pages before this index have left the window.
    package var released = 0
    /// Nanoseconds on the monotonic clock.
    package var lastUse: UInt64 = 0
    /// Whether there was no request for so long that the window may be coded near-losslessly, which the policy allows.
    package var isIdle = false
    /// What came of its pages that were coded while it lived.
    package var tally = CodingTally()
    /// How they compare with what the profile promises.
    package var drift = Drift()

    package init(
        id: UInt32, tenant: UInt32, connection: UInt64, name: String, context: CodingContext,
        namespace: PageNamespace, pageTokens: Int, tokenBytes: Int, policy: WirePolicy, lastUse: UInt64 = 0
    ) {
        self.id = id
        self.tenant = tenant
        self.connection = connection
        self.name = name
        self.context = context
        self.namespace = namespace
        self.pageTokens = pageTokens
        self.tokenBytes = tokenBytes
        self.policy = policy
        self.lastUse = lastUse
    }

    /// The first position inside the window.
    package var windowBegin: Int { max(0, tokens - Int(policy.window)) }

    /// Adds a page by position; false when it overlaps another.
    mutating func insert(_ page: SessionPage) -> Bool {
        if pages.last.map({ $0.end <= page.first }) ?? true {
            pages.append(page)
            return true
        }
        let at = pages.firstIndex { $0.end > page.first } ?? pages.count
        guard at == pages.count || pages[at].first >= page.end else { return false }
        pages.insert(page, at: at)
        released = min(released, at)
        return true
    }

    mutating func advance(to end: Int) { tokens = max(tokens, end) }

    package var protection: Protection { Protection(policy: policy, tokens: tokens) }
}
