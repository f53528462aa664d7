/// What a calibration will take, and what it is likely to be worth.
public struct CalibrationForecast: Sendable {
    /// Of all samples.
    public var tokens: Int
    /// Of a token's row.
    public var elements: Int
    /// Bytes at most, about.
    public var memory: Int
    /// On a machine that does nothing else, about.
    public var seconds: Double

    /// What so few tokens cost; nil where they are enough.
    ///
    /// The figure is SmolLM2-135M's at 16 times: 3680 tokens for its 11 520 elements gave 2.5 times the distortion of 57 344.
    public var warning: String? {
        guard tokens < 2 * elements else { return nil }
        return """
            \(tokens) tokens for \(elements) elements a token, fewer than two an element: what calibration has not seen is \
            coded badly (SmolLM2-135M, 16 times: a third of a token an element gave 2.5 times the distortion of five). \
            \(2 * elements) or more are better.
            """
    }
}
