/// How large a cache has to be for a block to be there still: the bytes of all different blocks used since (Mattson et al.: Evaluation
/// techniques for storage hierarchies, 1970), counted in a tree of partial sums (Fenwick, 1994).
struct ReuseDistance {
    private var sums: [Int] = [0]
    private var last: [UInt64: (time: Int, bytes: Int)] = [:]
    private var total = 0

    /// Bytes of what was used since, with the block itself; nil for one that never was.
    func distance(_ name: UInt64) -> Int? { last[name].map { total - sum(before: $0.time) } }

    /// Uses a block.
    mutating func use(_ name: UInt64, bytes: Int) {
        if let (time, bytes) = last[name] {
            add(-bytes, at: time)
            total -= bytes
        }
        let time = sums.count
        // A new end of the tree: the sum of the ranges that its own one has in it.
        var (sum, range) = (0, 1)
        while time & range == 0 {
            sum += sums[time - range]
            range <<= 1
        }
        sums.append(sum)
        add(bytes, at: time)
        total += bytes
        last[name] = (time, bytes)
    }

    private mutating func add(_ bytes: Int, at time: Int) {
        var time = time
        while time < sums.count {
            sums[time] += bytes
            time += time & -time
        }
    }

    private func sum(before time: Int) -> Int {
        var (time, sum) = (time - 1, 0)
        while time > 0 {
            sum += sums[time]
            time &= time - 1
        }
        return sum
    }
}
