/// Some elements of a row that are transformed together: whole tensors, or parts of them.
package struct ColumnGroup: Hashable, Sendable {
    /// Ascending or not, but apart.
    package let ranges: [Range<Int>]
    package let width: Int

    package init(_ ranges: [Range<Int>]) {
        // Neighbours are joined: fewer, longer copies.
        var joined: [Range<Int>] = []
        for range in ranges {
            if let last = joined.last, last.upperBound == range.lowerBound {
                joined[joined.count - 1] = last.lowerBound..<range.upperBound
            } else {
                joined.append(range)
            }
        }
        self.ranges = joined
        width = joined.reduce(0) { $0 + $1.count }
    }

    /// The columns of the group, in its order.
    package var columns: [Int] { ranges.flatMap { Array($0) } }

    /// What a column of the group has to be lowered by for its place in the group; nil for another column.
    package func origin(of column: Int) -> Int? {
        var place = 0
        for range in ranges {
            if range.contains(column) { return range.lowerBound - place }
            place += range.count
        }
        return nil
    }

    /// target[row][column of the group] = rows[row][its column].
    package func gather(
        _ rows: UnsafePointer<Float>, count: Int, stride: Int, into target: UnsafeMutablePointer<Float>
    ) {
        for row in 0..<count {
            var next = target + row * width
            for range in ranges {
                next.update(from: rows + row * stride + range.lowerBound, count: range.count)
                next += range.count
            }
        }
    }

    /// rows[row][its column] = source[row][column of the group].
    package func scatter(
        _ source: UnsafePointer<Float>, count: Int, into rows: UnsafeMutablePointer<Float>, stride: Int
    ) {
        for row in 0..<count {
            var next = source + row * width
            for range in ranges {
                (rows + row * stride + range.lowerBound).update(from: next, count: range.count)
                next += range.count
            }
        }
    }
}
