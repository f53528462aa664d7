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
    /// logarithmic axes. Finer than their first line it is at most that line's, and coarser than the last at most 1, when
    /// nothing is kept. Lines of distortion 0, in profiles of the past, say nothing; nil where all do.
    public func expectedDistortion(ratio: Double) -> Double? {
        let lines = expectations.filter { $0.distortion > 0 }
        guard let next = lines.firstIndex(where: { $0.ratio >= ratio }) else { return lines.isEmpty ? nil : 1 }
        let upper = lines[next]
        guard next > 0, upper.ratio > ratio else { return upper.distortion }
        let lower = lines[next - 1]
        let share = log(ratio / lower.ratio) / log(upper.ratio / lower.ratio)
        return lower.distortion * pow(upper.distortion / lower.distortion, share)
    }
}
