/// Counts durations in eight buckets an octave, so that percentiles are right within 7 %: log-linear buckets, as HdrHistogram (Tene)
/// has them. Recording is O(1), a percentile O(buckets), 4 KB in all.
package struct LatencyHistogram: Sendable {
    private static let perOctave = 8
    private var buckets = [UInt64](repeating: 0, count: 64 * LatencyHistogram.perOctave)
    package private(set) var count: UInt64 = 0
    /// Nanoseconds of all durations.
    package private(set) var sum: UInt64 = 0

    package init() {}

    private static func bucket(_ nanoseconds: UInt64) -> Int {
        guard nanoseconds >= 8 else { return Int(nanoseconds) }
        let exponent = 63 - nanoseconds.leadingZeroBitCount
        let fraction = Int(truncatingIfNeeded: nanoseconds >> UInt64(exponent - 3)) & 7
        return (exponent - 2) * perOctave + fraction
    }

    /// The middle of a bucket.
    private static func value(_ bucket: Int) -> Double {
        guard bucket >= 8 else { return Double(bucket) }
        let exponent = bucket / perOctave + 2
        return (8.5 + Double(bucket % perOctave)) * Double(UInt64(1) << UInt64(exponent - 3))
    }

    package mutating func record(_ nanoseconds: UInt64) {
        buckets[LatencyHistogram.bucket(nanoseconds)] += 1
        count += 1
        sum &+= nanoseconds
    }

    package mutating func add(_ other: LatencyHistogram) {
        for index in buckets.indices { buckets[index] += other.buckets[index] }
        count += other.count
        sum &+= other.sum
    }

    /// How many durations were shorter than 2^exponent nanoseconds, for each exponent from 3 on.
    package func below(_ exponents: ClosedRange<Int>) -> [UInt64] {
        exponents.map { buckets[..<LatencyHistogram.bucket(1 << UInt64($0))].reduce(0, +) }
    }

    /// Microseconds that the given share of all durations does not exceed; 0 without any.
    package func percentile(_ share: Double) -> Double {
        guard count > 0 else { return 0 }
        let rank = max(1, UInt64((share * Double(count)).rounded(.up)))
        var seen: UInt64 = 0
        for (index, number) in buckets.enumerated() {
            seen += number
            if seen >= rank { return LatencyHistogram.value(index) / 1000 }
        }
        return 0
    }
}
