/// What a shared tier's transfers take, from means alone.
///
/// Requests come at any time and share a link evenly, so a transfer takes as long as alone over the share of the link that is free,
/// however the sizes are spread (M/G/1 with processor sharing; Kleinrock: Queueing Systems II, 1976, 4.4).
public struct FleetFormula: Hashable, Sendable {
    /// Fetches a second at each machine.
    public var fetches: Double
    /// Tokens of each.
    public var tokens: Double
    /// Bytes of a token as it is stored, everything counted.
    public var tokenBytes: Double
    /// Tokens a second that the machine would compute instead.
    public var prefill: Double

    /// Means.
    public init(fetches: Double, tokens: Double, tokenBytes: Double, prefill: Double) {
        (self.fetches, self.tokens, self.tokenBytes, self.prefill) = (fetches, tokens, tokenBytes, prefill)
    }

    /// Share of the time that a link of so many bytes a second is in use: f · t · b / L. From 1 on it drowns.
    public func use(of link: Double) -> Double { drowning / link }

    /// Seconds of a fetch: t · b / (L − f · t · b); nil where the link drowns.
    public func seconds(over link: Double) -> Double? {
        link > drowning ? tokens * tokenBytes / (link - drowning) : nil
    }

    /// Bytes a second of the link that drowns: f · t · b.
    public var drowning: Double { fetches * tokens * tokenBytes }

    /// Bytes a second of the link over which a fetch takes as long as computing: b · (P + f · t).
    public var breakEven: Double { tokenBytes * (prefill + fetches * tokens) }
}

extension FleetResult {
    /// With the means of what was found in the shared tier; nil if nothing was.
    public var formula: FleetFormula? {
        guard finds > 0, thereTokens > 0 else { return nil }
        return FleetFormula(
            fetches: Double(finds) / (Double(stores) * seconds), tokens: Double(thereTokens) / Double(finds),
            tokenBytes: thereBytes / Double(thereTokens), prefill: Double(thereTokens) / thereSeconds)
    }
}
