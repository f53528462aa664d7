/// Finds the expired ones among the compact entries of pages on disk only, of which there may be millions: too many for
/// a heap. It goes round through all of them, a part at a time, and not at all before the earliest can have expired.
struct ExpirySweep {
    /// Such pages that expire some day.
    private var count = 0
    /// None of them expires before this second.
    private var earliest = UInt64.max
    /// The same of those that this round has seen.
    private var nextEarliest = UInt64.max
    private var cursor: UInt32 = 0

    mutating func enter(_ expires: UInt64) {
        count += 1
        earliest = min(earliest, expires)
        nextEarliest = min(nextEarliest, expires)
    }

    mutating func leave() { count -= 1 }

    /// Looks at up to `limit` entries and goes on from there the next time.
    mutating func next(_ limit: Int, of entries: CompactEntries, at now: UInt64) -> [UInt32] {
        guard count > 0, earliest <= now, entries.count > 0 else { return [] }
        var result: [UInt32] = []
        for _ in 0..<min(limit, Int(entries.count)) {
            let page = entries[cursor]
            if page.state == .onDisk, !page.isPinned, let expires = page.expiry {
                if expires <= now { result.append(cursor) } else { nextEarliest = min(nextEarliest, expires) }
            }
            cursor += 1
            if cursor == entries.count {
                cursor = 0
                (earliest, nextEarliest) = (nextEarliest, .max)
                break
            }
        }
        return result
    }
}
