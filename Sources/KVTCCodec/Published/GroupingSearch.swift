/// What every aligned group of a page would cost, and the best way to split the components into groups: dynamic programming
/// from the last component to the first (Bellman, 1957) with a Lagrangian for the size (Shoham & Gersho, 1988). The errors take
/// O(rank · rows · sizes · types), each slope O(rank · sizes · types).
struct GroupingSearch {
    private let rank: Int
    private let rows: Int
    /// [size][index of the aligned group][type]: squared error.
    private var errors: [[[Float]]] = []

    init(values: [Float], rank: Int, rows: Int, coder: PublishedCoder) {
        self.rank = rank
        self.rows = rows
        for size in PublishedCoder.sizes {
            errors.append(
                stride(from: 0, to: rank, by: size).map { first in
                    let group = PublishedGroup(values: values, first: first, count: min(size, rank - first), rows: rows)
                    return [group.energy]
                        + PublishedCoder.bits.dropFirst().map { group.error(bits: $0, kernels: coder.kernels) }
                })
        }
    }

    private func bytes(_ type: Int, _ count: Int) -> Int {
        1 + (type == 0 ? 0 : PublishedGroup.bytes(bits: PublishedCoder.bits[type], count: count, rows: rows))
    }

    /// Minimises error + slope · bytes over all splits into aligned groups, from the last component to the first; dropped
    /// groups at the end are left out.
    func best(slope: Float) -> [PublishedCoder.Group] {
        var best = [Float](repeating: 0, count: rank + 1)
        var choice = [PublishedCoder.Group](repeating: .init(size: 0, type: 0), count: rank)
        for first in (0..<rank).reversed() {
            best[first] = .infinity
            for (index, size) in PublishedCoder.sizes.enumerated() where first % size == 0 {
                let count = min(size, rank - first)
                for type in PublishedCoder.bits.indices {
                    let cost =
                        errors[index][first / size][type] + slope * Float(bytes(type, count)) + best[first + count]
                    if cost < best[first] {
                        best[first] = cost
                        choice[first] = .init(size: index, type: type)
                    }
                }
            }
        }
        var groups: [PublishedCoder.Group] = []
        var first = 0
        while first < rank {
            groups.append(choice[first])
            first += min(PublishedCoder.sizes[choice[first].size], rank - first)
        }
        while groups.last?.type == 0 { groups.removeLast() }
        return groups
    }

    /// Adds what the groups make of their components; those of no group are dropped.
    func add(_ groups: [PublishedCoder.Group], to error: inout CodingError) {
        var first = 0
        for group in groups {
            let errors = errors[group.size][first / PublishedCoder.sizes[group.size]]
            error.add(error: Double(errors[group.type]), energy: Double(errors[0]))
            first += PublishedCoder.sizes[group.size]
        }
    }
}
