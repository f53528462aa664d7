import KVTCCodec
import KVTCModel

extension ColumnGroup {
    /// The columns of each of so many bases: all tensors of layers that follow one another. No more than there are layers.
    static func bases(of geometry: Geometry, parts: Int) -> [ColumnGroup] {
        let layers = Set(geometry.tensors.map(\.layer)).sorted()
        let count = min(parts, layers.count)
        return (0..<count).map { part in
            let own = layers[part * layers.count / count..<(part + 1) * layers.count / count]
            return ColumnGroup(
                zip(geometry.tensors, geometry.offsets).filter { own.contains($0.0.layer) }.map { $1..<$1 + $0.width })
        }
    }

    /// The columns of a basis in groups no wider than `limit`: some whole layers each, keys and values together, or the heads of
    /// one layer shared out where a layer alone is wider.
    static func groups(of basis: ColumnGroup, geometry: Geometry, limit: Int) -> [ColumnGroup] {
        guard basis.width > limit else { return [basis] }
        var layers: [Int: [Range<Int>]] = [:]
        for (tensor, offset) in zip(geometry.tensors, geometry.offsets) where basis.origin(of: offset) != nil {
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
