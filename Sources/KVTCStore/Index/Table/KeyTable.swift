import CLinux

/// Finds numbers by keys. It holds no keys: its owner knows the key of each number, and is asked for it. A dictionary
/// would hold them, in 90 bytes a page and more, where this takes 7 to 14.
///
/// Open addressing with linear probing, at most three quarters full, and deletion that moves up what it can (Knuth, The
/// Art of Computer Programming, volume 3, 6.4, algorithms L and R); a byte of the hash beside each place spares most
/// looks elsewhere, as in Swiss tables. All operations are O(1) expected; one that grows a shard takes as long as that
/// is large.
struct KeyTable {
    private static let none = UInt32.max
    /// Hash tables grow by doubling; a small one never takes long.
    private static let shards = 256

    private var tables = [ContiguousArray<UInt32>](repeating: [], count: shards)
    /// Eight bits of each number's hash: a place that is passed over costs no look at its page, which is elsewhere in
    /// memory. 0 for an empty place.
    private var tags = [ContiguousArray<UInt8>](repeating: [], count: shards)
    private var fill = [Int](repeating: 0, count: shards)
    let hash = KeyHash()

    /// Memory taken up.
    var bytes: Int { tables.reduce(0) { $0 + $1.count * (MemoryLayout<UInt32>.stride + 1) } }

    // The lowest bits choose the place, the highest the table.
    private func tag(_ hash: UInt64) -> UInt8 { max(1, UInt8(truncatingIfNeeded: hash >> 48)) }

    /// Where the number is for which `isWanted` holds, or the empty place where it would be.
    private func probe(_ hash: UInt64, _ isWanted: (UInt32) -> Bool) -> (table: Int, slot: Int) {
        let table = Int(hash >> 56)
        let mask = tables[table].count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        let tag = tag(hash)
        while tags[table][slot] != 0 {
            if tags[table][slot] == tag, isWanted(tables[table][slot]) { break }
            slot = (slot + 1) & mask
        }
        return (table, slot)
    }

    /// The number for which `isWanted` holds, which is asked about those that may have the hash.
    func find(_ hash: UInt64, where isWanted: (UInt32) -> Bool) -> UInt32? {
        guard !tables[Int(hash >> 56)].isEmpty else { return nil }
        let (table, slot) = probe(hash, isWanted)
        let number = tables[table][slot]
        return number == Self.none ? nil : number
    }

    /// Asks for the memory that finding these hashes will touch first.
    func prefetch(_ hashes: [UInt64]) {
        for hash in hashes where !tables[Int(hash >> 56)].isEmpty {
            let table = Int(hash >> 56)
            let slot = Int(truncatingIfNeeded: hash) & (tables[table].count - 1)
            tags[table].withUnsafeBufferPointer { clinux_prefetch($0.baseAddress! + slot) }
            tables[table].withUnsafeBufferPointer { clinux_prefetch($0.baseAddress! + slot) }
        }
    }

    /// What ``find(_:where:)`` will be asked about first; nil when the first place has another hash.
    func guess(_ hash: UInt64) -> UInt32? {
        let table = Int(hash >> 56)
        guard !tables[table].isEmpty else { return nil }
        let slot = Int(truncatingIfNeeded: hash) & (tables[table].count - 1)
        return tags[table][slot] == tag(hash) ? tables[table][slot] : nil
    }

    /// Enters a number that is not there.
    /// - Parameter hashOf: the hash of a number that is there.
    mutating func insert(_ number: UInt32, _ hash: UInt64, hashOf: (UInt32) -> UInt64) {
        let table = Int(hash >> 56)
        if (fill[table] + 1) * 4 > tables[table].count * 3 { grow(table, hashOf) }
        set(probe(hash) { _ in false }, number, tag(hash))
        fill[table] += 1
    }

    /// Takes out a number that is there.
    /// - Parameter hashOf: the hash of any other number that is there.
    mutating func remove(_ number: UInt32, _ hash: UInt64, hashOf: (UInt32) -> UInt64) {
        var (table, gap) = probe(hash) { $0 == number }
        let mask = tables[table].count - 1
        // Those behind that had to step over the gap move up, so that no marks of deletion are needed.
        var slot = gap
        while true {
            slot = (slot + 1) & mask
            let number = tables[table][slot]
            guard number != Self.none else { break }
            let home = Int(truncatingIfNeeded: hashOf(number)) & mask
            if (slot - home) & mask >= (slot - gap) & mask {
                set((table, gap), number, tags[table][slot])
                gap = slot
            }
        }
        set((table, gap), Self.none, 0)
        fill[table] -= 1
    }

    private mutating func set(_ place: (table: Int, slot: Int), _ number: UInt32, _ tag: UInt8) {
        tables[place.table][place.slot] = number
        tags[place.table][place.slot] = tag
    }

    private mutating func grow(_ table: Int, _ hashOf: (UInt32) -> UInt64) {
        let old = tables[table]
        let count = max(8, old.count * 2)
        tables[table] = ContiguousArray(repeating: Self.none, count: count)
        tags[table] = ContiguousArray(repeating: 0, count: count)
        for number in old where number != Self.none {
            let hash = hashOf(number)
            set(probe(hash) { _ in false }, number, tag(hash))
        }
    }
}
