/// A set of rows (tokens) of one page, by index from the page's first token.
///
/// A bit a row (a bit vector; Knuth, The Art of Computer Programming 4A, 7.1.3): membership is O(1), the operations on whole
/// sets O(capacity / 64), the lists of rows O(capacity).
public struct RowSet: Hashable, Sendable {
    /// Number of rows of the page.
    public let capacity: Int
    // The rows of a usual page take one word, without an array.
    private var first: UInt64 = 0
    private var others: [UInt64] = []

    private var wordCount: Int { (capacity + 63) / 64 }

    private subscript(word index: Int) -> UInt64 {
        get { index == 0 ? first : others[index - 1] }
        set { if index == 0 { first = newValue } else { others[index - 1] = newValue } }
    }

    /// The empty set over `count` rows.
    public init(count: Int) {
        capacity = count
        if count > 64 { others = [UInt64](repeating: 0, count: (count - 1) / 64) }
    }

    /// Every one of `count` rows.
    package static func full(_ count: Int) -> RowSet {
        var rows = RowSet(count: count)
        rows.insert(0..<count)
        return rows
    }

    /// Adds a row; rows outside the page are ignored, so that a policy's range may reach past it.
    public mutating func insert(_ row: Int) {
        if (0..<capacity).contains(row) { self[word: row >> 6] |= 1 << UInt64(row & 63) }
    }

    /// Adds the part of `rows` that lies in the page.
    public mutating func insert(_ rows: Range<Int>) {
        for row in rows.clamped(to: 0..<capacity) { insert(row) }
    }

    /// Whether a row is in the set.
    public func contains(_ row: Int) -> Bool {
        (0..<capacity).contains(row) && self[word: row >> 6] >> UInt64(row & 63) & 1 == 1
    }

    /// Number of rows in the set.
    public var count: Int { others.reduce(first.nonzeroBitCount) { $0 + $1.nonzeroBitCount } }

    /// Whether no row is in the set.
    public var isEmpty: Bool { first == 0 && others.allSatisfy { $0 == 0 } }

    /// Adds every row of a set of the same page.
    public mutating func formUnion(_ other: RowSet) {
        precondition(other.capacity == capacity, "row sets of different pages")
        for index in 0..<wordCount { self[word: index] |= other[word: index] }
    }

    /// Whether every row of a set of the same page is in this one.
    public func isSuperset(of other: RowSet) -> Bool {
        precondition(other.capacity == capacity, "row sets of different pages")
        return (0..<wordCount).allSatisfy { other[word: $0] & ~self[word: $0] == 0 }
    }

    /// The rows in the set, ascending.
    public var rows: [Int] { (0..<capacity).filter(contains) }

    /// The rows not in the set, ascending.
    public var complement: [Int] { (0..<capacity).filter { !contains($0) } }

    /// Bytes of ``bitmap``.
    package static func bitmapBytes(_ count: Int) -> Int { (count + 7) / 8 }

    /// Row i is bit i % 8 of byte i / 8.
    package var bitmap: [UInt8] {
        (0..<RowSet.bitmapBytes(capacity)).map {
            UInt8(truncatingIfNeeded: self[word: $0 >> 3] >> UInt64(8 * ($0 & 7)))
        }
    }

    /// Nil where a bit past the last row is set or the length is wrong.
    package init?(count: Int, bitmap: UnsafeRawBufferPointer) {
        guard bitmap.count == RowSet.bitmapBytes(count) else { return nil }
        self.init(count: count)
        for (index, byte) in bitmap.enumerated() { self[word: index >> 3] |= UInt64(byte) << UInt64(8 * (index & 7)) }
        if count % 64 != 0, count > 0, self[word: wordCount - 1] >> UInt64(count % 64) != 0 { return nil }
    }
}
