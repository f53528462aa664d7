import struct KVTCStore.StoreKey

/// Pages that were not in the cluster a moment ago, so that they are not asked for again at once. Bounded in number and in time: what
/// it has forgotten is asked for, which is never wrong.
struct Absences {
    /// Keys of one generation; there are two.
    static let most = 65_536

    private var young: Set<StoreKey> = []
    private var old: Set<StoreKey> = []
    /// When the younger generation began.
    private var began: UInt64 = 0
    private let halfLife: UInt64

    /// - Parameter nanoseconds: a page is remembered for this long at most, and half as long at least unless there are many.
    init(nanoseconds: UInt64) { halfLife = nanoseconds / 2 }

    mutating func insert(_ key: StoreKey, at now: UInt64) {
        turn(now)
        if young.count == Self.most { (old, young, began) = (young, [], now) }
        if halfLife > 0 { young.insert(key) }
    }

    mutating func remove(_ key: StoreKey) {
        young.remove(key)
        old.remove(key)
    }

    mutating func contains(_ key: StoreKey, at now: UInt64) -> Bool {
        turn(now)
        return young.contains(key) || old.contains(key)
    }

    var count: Int { young.count + old.count }

    private mutating func turn(_ now: UInt64) {
        let age = now - min(began, now)
        guard age >= halfLife else { return }
        let isOver = age >= 2 * halfLife
        // Not from now on: what entered first would live for too long.
        (old, young, began) = (isOver ? [] : young, [], isOver ? now : began + halfLife)
    }
}
