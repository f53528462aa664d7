import KVTCSystem
import Testing

@Suite struct LatencyHistogramTests {
    @Test func percentilesAreCloseToTheTruth() {
        var histogram = LatencyHistogram()
        #expect(histogram.percentile(0.5) == 0)
        for microseconds in 1...1000 { histogram.record(UInt64(microseconds) * 1000) }
        #expect(histogram.count == 1000)
        for (share, truth) in [(0.5, 500.0), (0.9, 900), (0.99, 990), (1, 1000)] {
            #expect(abs(histogram.percentile(share) - truth) / truth < 0.07, "\(share)")
        }
        #expect(histogram.sum == 500_500_000)
        histogram.record(0)
        histogram.record(.max)
        #expect(histogram.percentile(1) > 1e12)
    }

    @Test func countsBelowAPowerOfTwoAreExact() {
        var histogram = LatencyHistogram()
        for nanoseconds in [0, 7, 8, 1023, 1024, 1025, 1 << 20, (1 << 36) - 1, 1 << 36] as [UInt64] {
            histogram.record(nanoseconds)
        }
        #expect(histogram.below(3...4) == [2, 3])
        #expect(histogram.below(10...11) == [4, 6])
        #expect(histogram.below(20...21) == [6, 7])
        #expect(histogram.below(36...37) == [8, 9])
    }
}
