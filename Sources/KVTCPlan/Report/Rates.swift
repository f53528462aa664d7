/// How fast prompts are computed, and what was computed is brought back.
public struct Rates: Hashable, Sendable {
    /// What it takes to compute tokens of a prompt.
    public enum Prefill: Hashable, Sendable {
        /// Tokens a second, however long the prompt.
        case tokensPerSecond(Double)
        /// Operations of the model over those of the GPU. A token takes 2 for each parameter that it goes through, and 4 for each
        /// token before it and each element that attention compares (Kaplan et al., arXiv 2001.08361, 2.1, forward only).
        case operations(parameters: Double, attention: Double, perSecond: Double)

        /// Seconds for the tokens from `first` up to `end` of a prompt.
        func seconds(from first: Int, to end: Int) -> Double {
            let (first, end) = (Double(first), Double(end))
            switch self {
            case .tokensPerSecond(let rate): return (end - first) / rate
            case .operations(let parameters, let attention, let perSecond):
                return (2 * parameters * (end - first) + 2 * attention * (end * end - first * first)) / perSecond
            }
        }
    }

    /// Nil where it is not known: then times are not told.
    public var prefill: Prefill?
    /// Tokens a second that come back from RAM, by ratio. Where a ratio has none, what its hits take is not told.
    public var restore: [Double: Double]
    /// Bytes a second that the disk reads; nil: disk hits take as long as those in RAM.
    public var diskBytesPerSecond: Double?

    /// Rates.
    public init(
        prefill: Prefill? = nil, restore: [Double: Double] = [:], diskBytesPerSecond: Double? = nil
    ) {
        (self.prefill, self.restore, self.diskBytesPerSecond) = (prefill, restore, diskBytesPerSecond)
    }
}
