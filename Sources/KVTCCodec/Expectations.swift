import Glibc

extension ProfileMetadata {
    /// How much stronger than any held-out row a row must be to count as an outlier.
    static let outlierFactor = 2.0

    /// The finest step, as an index, at which no row but outliers has codes beyond the limit.
    package static func finestStep(peaks: [Double]) -> Int {
        let largest = max(1e-30, min(outlierFactor * peaks.reduce(0, +), 1e30)).squareRoot()
        return Int((64 * log2(largest / Double(TransformCoder.codeLimit))).rounded(.up))
    }

    /// The distortion to expect of a page at a coded ratio (for elements of 16 bits): between the lines of ``expectations`` on
    /// logarithmic axes; nil outside of them.
    public func expectedDistortion(ratio: Double) -> Double? {
        guard let next = expectations.firstIndex(where: { $0.ratio >= ratio }) else { return nil }
        let upper = expectations[next]
        let lower = upper.ratio == ratio ? upper : next > 0 ? expectations[next - 1] : nil
        guard let lower, lower.distortion > 0, upper.distortion > 0 else { return nil }
        guard lower.ratio < upper.ratio else { return upper.distortion }
        let share = log(ratio / lower.ratio) / log(upper.ratio / lower.ratio)
        return lower.distortion * pow(upper.distortion / lower.distortion, share)
    }
}
