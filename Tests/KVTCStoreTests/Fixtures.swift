import KVTCStore
import Synchronization
import TestSupport

/// Key number `n` of a tenant.
func key(_ n: Int, tenant: UInt32 = 7) -> StoreKey {
    var generator = SeededGenerator(seed: UInt64(n))
    return StoreKey(tenant: tenant, page: (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) })!
}

/// Page bytes that belong to a seed, so that wrong bytes are noticed.
func page(_ seed: Int, bytes: Int) -> [UInt8] {
    var generator = SeededGenerator(seed: UInt64(truncatingIfNeeded: seed) &* 0x1F3D)
    var result: [UInt8] = []
    result.reserveCapacity(bytes + 8)
    while result.count < bytes { withUnsafeBytes(of: generator.next()) { result += $0 } }
    return Array(result[..<bytes])
}

/// Time that moves only when told to.
final class TestClock: Sendable {
    private let state = Mutex((wall: UInt64(1_000_000), milliseconds: UInt64(5_000)))

    var clock: StoreClock {
        StoreClock(
            wallSeconds: { self.state.withLock { $0.wall } }, milliseconds: { self.state.withLock { $0.milliseconds } })
    }

    var wall: UInt64 { state.withLock { $0.wall } }
    var milliseconds: UInt64 { state.withLock { $0.milliseconds } }

    func advance(seconds: UInt64) {
        state.withLock {
            $0.wall += seconds
            $0.milliseconds += seconds * 1000
        }
    }
}

extension StoreConfiguration {
    /// A small store: 16 KiB of RAM, 64 KiB of disk in 8 KiB segments.
    static func small(
        _ directory: String? = nil, ram: Int = 16 << 10, disk: Int = 64 << 10, segment: Int = 8 << 10,
        clock: TestClock = TestClock()
    ) -> StoreConfiguration {
        StoreConfiguration(
            directory: directory, ramBudget: ram, diskBudget: directory == nil ? 0 : disk, segmentBytes: segment,
            clock: clock.clock)
    }
}

extension Store {
    /// The page's bytes; nil on a miss or a corrupt page.
    func bytes(_ key: StoreKey) -> [UInt8]? {
        if case .hit(let bytes) = read(key, { Array($0) }) { return bytes }
        return nil
    }

    /// The outcome of a read without its bytes.
    func outcome(_ key: StoreKey) -> ReadOutcome<Int> { read(key) { $0.count } }
}
