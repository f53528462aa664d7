import KVTCCodec
import KVTCModel

/// Some elements of a row that are decomposed together.
struct ColumnGroup {
    /// Ascending or not, but apart.
    let ranges: [Range<Int>]
    let width: Int

    init(_ ranges: [Range<Int>]) {
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
    var columns: [Int] { ranges.flatMap { Array($0) } }

    /// target[row][column of the group] = rows[row][its column].
    func gather(_ rows: UnsafePointer<Float>, count: Int, stride: Int, into target: UnsafeMutablePointer<Float>) {
        for row in 0..<count {
            var next = target + row * width
            for range in ranges {
                next.update(from: rows + row * stride + range.lowerBound, count: range.count)
                next += range.count
            }
        }
    }

    /// rows[row][its column] = source[row][column of the group].
    func scatter(_ source: UnsafePointer<Float>, count: Int, into rows: UnsafeMutablePointer<Float>, stride: Int) {
        for row in 0..<count {
            var next = source + row * width
            for range in ranges {
                (rows + row * stride + range.lowerBound).update(from: next, count: range.count)
                next += range.count
            }
        }
    }

    /// The columns `range` of a row in groups no wider than `limit`: some whole layers each, keys and values together,
    /// or the heads of one layer shared out where a layer alone is wider.
    static func groups(of range: Range<Int>, geometry: Geometry, limit: Int) -> [ColumnGroup] {
        guard range.count > limit else { return [ColumnGroup([range])] }
        var layers: [Int: [Range<Int>]] = [:]
        for (tensor, offset) in zip(geometry.tensors, geometry.offsets) where range.contains(offset) {
            for head in 0..<tensor.heads {
                let start = offset + head * tensor.headDim
                // A latent's one head may be wider than a group.
                for part in stride(from: start, to: start + tensor.headDim, by: limit) {
                    layers[tensor.layer, default: []].append(part..<min(part + limit, start + tensor.headDim))
                }
            }
        }
        var groups: [ColumnGroup] = []
        var pending: [Range<Int>] = []
        var width = 0
        func close() {
            if !pending.isEmpty { groups.append(ColumnGroup(pending)) }
            (pending, width) = ([], 0)
        }
        for layer in layers.keys.sorted() {
            let heads = layers[layer]!
            let total = heads.reduce(0) { $0 + $1.count }
            if width + total > limit { close() }
            // Even shares, so that no group is left with a few columns of a wide layer.
            let share = (total + (total + limit - 1) / limit - 1) / ((total + limit - 1) / limit)
            for head in heads {
                if width + head.count > (total > limit ? max(share, head.count) : limit) { close() }
                pending.append(head)
                width += head.count
            }
        }
        close()
        return groups
    }
}
