import KVTCCodec
import KVTCModel
import KVTCStore
import KVTCSystem
import TestSupport

@testable import KVTCShared

/// A block that only its header says something of.
struct PlayedPage: Sendable, Equatable {
    var block: [UInt8]
    var attributes: PageAttributes

    init(
        number: Int = 1, mode: Mode = .transform, distortion: Float = 0.1, exactRows: Int = 0, bytes: Int = 200,
        ttl: UInt32 = 0
    ) {
        var block = [UInt8](repeating: 0, count: BlockHeader.size)
        func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
            block.withUnsafeMutableBytes { $0.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self) }
        }
        let bitmap = exactRows > 0 ? [UInt8(truncatingIfNeeded: (1 << exactRows) - 1), 0] : []
        put(UInt32(0x4254_564B), 0)
        put(UInt16(1), 4)
        (block[6], block[7]) = (mode.rawValue, 1)
        put(UInt32(16), 48)
        put(UInt32(number * 16), 52)
        put(UInt32(4), 56)
        put(UInt32(exactRows), 60)
        put(distortion.bitPattern, 68)
        put(UInt32(bitmap.count), 76)
        put(UInt32(bytes), 84)
        var generator = SeededGenerator(seed: UInt64(number))
        block += bitmap + (0..<bytes).map { _ in UInt8.random(in: 0...255, using: &generator) }
        let sum = block.withUnsafeBytes { checksum(UnsafeRawBufferPointer(rebasing: $0[..<96])) }
        put(sum, 96)
        self.block = block
        attributes = PageAttributes(
            ttl: ttl, firstPosition: UInt32(number * 16), tokens: 16, rawBytes: 128, coded: mode != .raw,
            lossy: !mode.isExact)
    }
}

/// What a machine of a fleet has: pages in its own store, and the tier.
final class Machine: Sendable {
    let pages = Monitor<[StoreKey: PlayedPage]>([:])
    let events = Monitor<[String]>([])
    let tier: FleetTier

    /// - Parameter tenant: what all users of this machine are called everywhere; nil: each has a name.
    init(
        _ servers: any FleetServers, tenant: String? = nil,
        _ change: (inout FleetSettings) -> Void = { _ in }
    ) throws {
        var settings = FleetSettings(
            redis: RedisSettings(url: try RedisURL("redis://localhost")),
            secret: try FleetSecret([UInt8](repeating: 3, count: 32)))
        // Long enough for a machine that does something else.
        (settings.lookupMilliseconds, settings.pullMilliseconds) = (20_000, 20_000)
        settings.pauses = 1_000_000...20_000_000
        // The first round is all that a test waits for.
        settings.profileIntervals = 1 << 50...1 << 50
        change(&settings)
        let (pages, events) = (pages, events)
        tier = try FleetTier(settings, servers: servers, tenantName: { tenant ?? "tenant \($0)" }) { key, body in
            guard let page = pages.withLock({ $0[key] }) else { return false }
            page.block.withUnsafeBytes { body($0, page.attributes) }
            return true
        } log: { event in
            events.update { $0.append(event.description) }
        }
    }

    deinit { tier.close() }

    /// Keeps pages in the store and offers them.
    func push(_ new: [StoreKey: PlayedPage]) {
        pages.withLock { $0.merge(new) { $1 } }
        tier.offer(Array(new.keys))
    }

    /// Waits until the statistics are so.
    func expect(_ condition: (SharedStatistics) -> Bool) {
        _ = tier.tally.statistics.wait { condition($0) ? true : nil }
    }

    /// Pages that were offered and let go.
    var heldBack: UInt64 {
        let held = tier.statistics.heldBack
        return held.budget + held.queue + held.fault
    }

    /// What comes of fetching pages, when all outcomes are there. Traps when one comes twice.
    func fetch(_ keys: [StoreKey]) -> [SharedOutcome] {
        let outcomes = Monitor<[Int: SharedOutcome]>([:])
        tier.fetch(keys) { index, outcome in
            outcomes.update { precondition($0.updateValue(outcome, forKey: index) == nil, "an outcome comes twice") }
        }
        let all = outcomes.wait { $0.count == keys.count ? $0 : nil }!
        return keys.indices.map { all[$0]! }
    }
}

extension SharedOutcome {
    var block: [UInt8]? { if case .hit(_, let block) = self { block } else { nil } }
    var isAbsent: Bool { if case .absent = self { true } else { false } }
    var isFault: Bool { if case .fault = self { true } else { false } }
}

func key(_ number: Int, tenant: UInt32 = 1) -> StoreKey {
    StoreKey(tenant: tenant, page: (0..<32).map { UInt8(truncatingIfNeeded: number >> (8 * ($0 % 4))) })!
}
