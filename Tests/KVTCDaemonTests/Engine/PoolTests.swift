import KVTCDaemon
import KVTCSystem
import Testing

@Suite struct PoolTests {
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
}
