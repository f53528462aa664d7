import KVTCStore
import Synchronization
import TestSupport

/// Key number `n` of a tenant.
package func key(_ n: Int, tenant: UInt32 = 7) -> StoreKey {
    var generator = SeededGenerator(seed: UInt64(n))
    return StoreKey(tenant: tenant, page: (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) })!
}

/// The bytes of a page. A type of its own so that a failed expectation prints a line and not the bytes.
package struct PageBytes: Equatable, CustomStringConvertible {
    package var array: [UInt8]

    package init(array: [UInt8]) { self.array = array }

    package var description: String {
        let sum = array.withUnsafeBytes { checksum($0) }
        return "\(array.count) bytes, checksum \(String(sum, radix: 16))"
    }
}

/// Page bytes that belong to a seed, so that wrong bytes are noticed.
package func page(_ seed: Int, bytes: Int) -> PageBytes {
    var generator = SeededGenerator(seed: UInt64(truncatingIfNeeded: seed) &* 0x1F3D)
    var result: [UInt8] = []
    result.reserveCapacity(bytes + 8)
    while result.count < bytes { withUnsafeBytes(of: generator.next()) { result += $0 } }
    return PageBytes(array: Array(result[..<bytes]))
}

/// Time that moves only when told to.
package final class TestClock: Sendable {
    package init() {}

    private let state = Mutex((wall: UInt64(1_000_000), milliseconds: UInt64(5_000), boot: UInt64(0)))

    package var clock: StoreClock {
        StoreClock(
            wallSeconds: { self.state.withLock { $0.wall } }, milliseconds: { self.state.withLock { $0.milliseconds } },
            boot: state.withLock { $0.boot })
    }

    package var wall: UInt64 { state.withLock { $0.wall } }
    package var milliseconds: UInt64 { state.withLock { $0.milliseconds } }

    /// Sets the wall clock.
    package func set(wall: UInt64) { state.withLock { $0.wall = wall } }

    /// Names this run of the machine.
    package func beginBoot(_ boot: UInt64, milliseconds: UInt64) {
        state.withLock { ($0.boot, $0.milliseconds) = (boot, milliseconds) }
    }

    package func advance(seconds: UInt64) {
        state.withLock {
            $0.wall &+= seconds
            $0.milliseconds += seconds * 1000
        }
    }

    /// Within a second of the wall clock.
    package func advance(milliseconds: UInt64) { state.withLock { $0.milliseconds += milliseconds } }
}

extension StoreConfiguration {
    /// A small store: 16 KiB of RAM, 64 KiB of disk in 8 KiB segments.
    package static func small(
        _ directory: String? = nil, ram: Int = 16 << 10, disk: Int = 64 << 10, segment: Int = 8 << 10,
        clock: TestClock = TestClock()
    ) -> StoreConfiguration {
        var configuration = StoreConfiguration(
            directory: directory, ramBudget: ram, diskBudget: directory == nil ? 0 : disk, segmentBytes: segment,
            clock: clock.clock)
        // So that pages are compact although there are few.
        configuration.expandedPages = 2
        return configuration
    }
}

extension StoreConfiguration {
    /// A small store on a disk in memory. The salts count up, so that files are the same every time.
    package static func memory(
        _ device: MemoryDevice, ram: Int = 16 << 10, disk: Int = 64 << 10, segment: Int = 8 << 10,
        clock: TestClock = TestClock()
    ) -> StoreConfiguration {
        var configuration = small("/store", ram: ram, disk: disk, segment: segment, clock: clock)
        configuration.device = device
        let salts = Mutex(UInt64(0x5A17_0000))
        configuration.salt = {
            salts.withLock { salt in
                salt += 1
                return salt
            }
        }
        return configuration
    }
}

extension Store {
    /// The page's bytes; nil on a miss or a corrupt page.
    package func bytes(_ key: StoreKey) -> PageBytes? {
        if case .hit(let bytes) = read(key, { PageBytes(array: Array($0)) }) { return bytes }
        return nil
    }

    package func put(
        _ key: StoreKey, bytes: PageBytes, attributes: PageAttributes, after: ArraySlice<StoreKey> = []
    ) -> PutOutcome {
        put(key, bytes: bytes.array, attributes: attributes, after: after)
    }

    package func replace(_ key: StoreKey, bytes: PageBytes, attributes: PageAttributes) -> Bool {
        replace(key, bytes: bytes.array, attributes: attributes)
    }

    /// The outcome of a read without its bytes.
    package func outcome(_ key: StoreKey) -> ReadOutcome<Int> { read(key) { $0.count } }
}
