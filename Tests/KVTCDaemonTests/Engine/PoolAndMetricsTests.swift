import KVTCDaemon
import KVTCSystem
import Testing

@Suite struct PoolAndMetricsTests {
    @Test func urgentJobsGoFirst() throws {
        let pool = try WorkPool(threads: 1)
        let gate = Monitor(false)
        let order = Monitor<[Int]>([])
        // The only thread is kept busy until everything else waits.
        pool.submit(.background) { _ = gate.wait { $0 ? true : nil } }
        for number in 0..<3 { pool.submit(.background) { order.update { $0.append(number) } } }
        for number in 10..<13 { pool.submit(.urgent) { order.update { $0.append(number) } } }
        gate.update { $0 = true }
        pool.stop()
        // The gate's job may have been taken after the urgent ones were added.
        #expect(order.withLock { $0 } == [10, 11, 12, 0, 1, 2])
    }

    @Test func stoppingFinishesWhatWaits() throws {
        let pool = try WorkPool(threads: 3)
        let done = Monitor(0)
        for _ in 0..<5000 { pool.submit(.background) { done.update { $0 += 1 } } }
        pool.stop()
        #expect(done.withLock { $0 } == 5000)
    }

    @Test func mappingNeedsNoFreeThread() throws {
        let gate = Monitor(0)
        let pool = try WorkPool(threads: 4)
        // Only threads that work side by side get past: the caller and three more.
        let numbers = pool.map(4) { number in
            gate.update { $0 += 1 }
            _ = gate.wait { $0 >= 4 ? true : nil }
            return number
        }
        #expect(numbers == [0, 1, 2, 3])
        // All threads are kept busy: the caller does everything.
        for _ in 0..<4 { pool.submit(.urgent) { _ = gate.wait { $0 < 0 ? true : nil } } }
        #expect(pool.map(100) { $0 * $0 } == (0..<100).map { $0 * $0 })
        #expect(pool.map(0) { $0 }.isEmpty)
        gate.update { $0 = -1 }
        pool.stop()
        #expect(WorkPool().map(3) { -$0 } == [0, -1, -2])
    }

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
