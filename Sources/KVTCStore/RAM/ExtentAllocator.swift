/// Hands out ranges of an address space in units of 512 bytes: first fit, neighbours merge when freed (Knuth, The Art
/// of Computer Programming, volume 1, 2.5, algorithms A and B).
///
/// The free ranges are in an array, sorted by offset. With F of them ``allocate(_:)`` is O(F), ``take(_:)`` and
/// ``release(_:)`` search in O(log F) and move O(F) ranges of 16 bytes. Pages are large, so F is small; the least size
/// known to fail is remembered, which makes the common "no room" O(1).
package struct ExtentAllocator: Sendable {
    /// The unit of allocation in bytes.
    package static let granularity = 512

    /// Bytes of the whole space.
    package let capacity: Int
    /// Bytes handed out.
    package private(set) var used = 0
    private var free: [Range<Int>]
    private var smallestFailure = Int.max

    /// An empty space; a capacity that is no multiple of the unit loses its end.
    package init(capacity: Int) {
        self.capacity = max(0, capacity) / Self.granularity * Self.granularity
        free = self.capacity > 0 ? [0..<self.capacity] : []
    }

    /// The bytes a request takes; nil when it overflows.
    package static func rounded(_ bytes: Int) -> Int? {
        let (sum, overflow) = bytes.addingReportingOverflow(granularity - 1)
        return overflow || bytes < 0 ? nil : sum / granularity * granularity
    }

    /// The free ranges in order, none empty, no two touching.
    package var freeRanges: [Range<Int>] { free }

    /// Takes the first free range that holds `bytes`; nil when none does or `bytes` is not positive.
    package mutating func allocate(_ bytes: Int) -> Range<Int>? {
        guard bytes > 0, let size = Self.rounded(bytes), size < smallestFailure else { return nil }
        guard let index = free.firstIndex(where: { $0.count >= size }) else {
            smallestFailure = size
            return nil
        }
        let range = free[index].lowerBound..<free[index].lowerBound + size
        if free[index].count == size {
            free.remove(at: index)
        } else {
            free[index] = range.upperBound..<free[index].upperBound
        }
        used += size
        return range
    }

    /// Takes a given range; false when any of it is not free.
    package mutating func take(_ range: Range<Int>) -> Bool {
        guard !range.isEmpty else { return false }
        var low = 0
        var high = free.count
        while low < high {
            let middle = (low + high) / 2
            if free[middle].upperBound < range.upperBound { low = middle + 1 } else { high = middle }
        }
        guard low < free.count, free[low].lowerBound <= range.lowerBound else { return false }
        let whole = free[low]
        let rest = [whole.lowerBound..<range.lowerBound, range.upperBound..<whole.upperBound].filter { !$0.isEmpty }
        free.replaceSubrange(low...low, with: rest)
        used += range.count
        return true
    }

    /// Gives a range back exactly as it was handed out. Freeing what is free already is a programming error and traps.
    package mutating func release(_ range: Range<Int>) {
        precondition(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= capacity, "range outside the arena")
        var low = 0
        var high = free.count
        while low < high {
            let middle = (low + high) / 2
            if free[middle].lowerBound < range.lowerBound { low = middle + 1 } else { high = middle }
        }
        let joinsPrevious = low > 0 && free[low - 1].upperBound == range.lowerBound
        let joinsNext = low < free.count && free[low].lowerBound == range.upperBound
        precondition(low == 0 || free[low - 1].upperBound <= range.lowerBound, "range freed twice")
        precondition(low == free.count || range.upperBound <= free[low].lowerBound, "range freed twice")
        switch (joinsPrevious, joinsNext) {
        case (true, true):
            free[low - 1] = free[low - 1].lowerBound..<free[low].upperBound
            free.remove(at: low)
        case (true, false): free[low - 1] = free[low - 1].lowerBound..<range.upperBound
        case (false, true): free[low] = range.lowerBound..<free[low].upperBound
        case (false, false): free.insert(range, at: low)
        }
        used -= range.count
        smallestFailure = .max
    }
}
