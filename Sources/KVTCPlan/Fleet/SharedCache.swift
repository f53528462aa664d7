/// What a shared tier has: the blocks used longest ago go first, as with `maxmemory-policy allkeys-lru` (of which Redis takes the oldest of
/// a few samples).
struct SharedCache {
    private struct Entry {
        var name: UInt64
        var bytes: Int
        /// Seconds, from which on it can be read.
        var since: Double
        var newer: Int
        var older: Int
    }

    /// Bytes; nil: endless.
    private let budget: Int?
    /// The first entry is no block: its `older` is the newest block, its `newer` the oldest.
    private var entries = [Entry(name: 0, bytes: 0, since: 0, newer: 0, older: 0)]
    private var slots: [UInt64: Int] = [:]
    private var free: [Int] = []
    /// Bytes that are there.
    private(set) var bytes = 0

    init(budget: Int?) { self.budget = budget }

    /// The bytes of a block that can be read at that time.
    func bytes(_ name: UInt64, at time: Double) -> Int? {
        guard let slot = slots[name], entries[slot].since <= time else { return nil }
        return entries[slot].bytes
    }

    /// Makes a block the newest; whether it is there, or on its way.
    mutating func use(_ name: UInt64) -> Bool {
        guard let slot = slots[name] else { return false }
        unlink(slot)
        link(slot)
        return true
    }

    /// Adds a block that is not there.
    mutating func add(_ name: UInt64, bytes count: Int, since: Double) {
        if let budget {
            guard count <= budget else { return }
            while bytes + count > budget { dropOldest() }
        }
        let entry = Entry(name: name, bytes: count, since: since, newer: 0, older: 0)
        let slot = free.popLast() ?? entries.endIndex
        if slot == entries.endIndex { entries.append(entry) } else { entries[slot] = entry }
        slots[name] = slot
        bytes += count
        link(slot)
    }

    private mutating func dropOldest() {
        let slot = entries[0].newer
        slots[entries[slot].name] = nil
        bytes -= entries[slot].bytes
        unlink(slot)
        free.append(slot)
    }

    private mutating func link(_ slot: Int) {
        let newest = entries[0].older
        (entries[slot].newer, entries[slot].older) = (0, newest)
        entries[newest].newer = slot
        entries[0].older = slot
    }

    private mutating func unlink(_ slot: Int) {
        let (newer, older) = (entries[slot].newer, entries[slot].older)
        entries[newer].older = older
        entries[older].newer = newer
    }
}
