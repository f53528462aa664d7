import Glibc
import KVTCCalibration

/// A synthetic trace of multi-turn conversations, the same for the same seed.
///
/// Each request comes from one of `sessions` conversations, chosen by Zipf's law with exponent 1. It asks for all pages
/// of the conversation so far, in order, and then adds 1 to 6 new ones. A conversation of more than 64 pages ends and a new
/// one takes its place.
struct Trace {
    /// Numbers of pages in the order in which they are asked for.
    let accesses: [Int]
    /// Different pages.
    let pages: Int

    init(sessions: Int, requests: Int, seed: UInt64) {
        var random = SplitMix(state: seed)
        var weights: [Double] = []
        var sum = 0.0
        for rank in 1...sessions {
            sum += 1 / Double(rank)
            weights.append(sum)
        }
        var conversations = [[Int]](repeating: [], count: sessions)
        var accesses: [Int] = []
        var pages = 0
        for _ in 0..<requests {
            let point = Double.random(in: 0..<sum, using: &random)
            var (low, high) = (0, sessions - 1)
            while low < high {
                let middle = (low + high) / 2
                if weights[middle] <= point { low = middle + 1 } else { high = middle }
            }
            if conversations[low].count > 64 { conversations[low] = [] }
            let added = Int.random(in: 1...6, using: &random)
            conversations[low] += pages..<pages + added
            pages += added
            accesses += conversations[low]
        }
        self.accesses = accesses
        self.pages = pages
    }

    /// The share of repeated accesses that `isHit` finds; first ones can't be hits and do not count.
    func hitRatio(_ isHit: (Int) throws -> Bool) rethrows -> Double {
        var seen = [Bool](repeating: false, count: pages)
        var (hits, repeats) = (0, 0)
        for page in accesses {
            let hit = try isHit(page)
            guard seen[page] else {
                seen[page] = true
                continue
            }
            repeats += 1
            hits += hit ? 1 : 0
        }
        return Double(hits) / Double(max(repeats, 1))
    }
}

/// The least recently used page goes, exactly.
struct ExactLRU {
    private let capacity: Int
    private var newer: [Int], older: [Int]
    private var isIn: [Bool]
    private var (oldest, newest, count) = (-1, -1, 0)

    init(capacity: Int, pages: Int) {
        self.capacity = capacity
        newer = [Int](repeating: -1, count: pages)
        older = newer
        isIn = [Bool](repeating: false, count: pages)
    }

    /// Whether the page was there; it is afterwards.
    mutating func access(_ page: Int) -> Bool {
        let hit = isIn[page]
        if hit { unlink(page) } else if count == capacity { unlink(oldest) }
        (older[page], newer[page]) = (newest, -1)
        if newest >= 0 { newer[newest] = page } else { oldest = page }
        newest = page
        isIn[page] = true
        count += 1
        return hit
    }

    private mutating func unlink(_ page: Int) {
        if older[page] >= 0 { newer[older[page]] = newer[page] } else { oldest = newer[page] }
        if newer[page] >= 0 { older[newer[page]] = older[page] } else { newest = older[page] }
        isIn[page] = false
        count -= 1
    }
}

/// The page that is needed last goes (Belady: A study of replacement algorithms for a virtual-storage computer, 1966): no
/// policy that knows only the past can find more.
struct OfflineOptimum {
    private let capacity: Int
    private let next: [Int]
    private var due: [Int]
    private var heap: [(use: Int, page: Int)] = []
    private var (time, count) = (0, 0)
    private static let never = Int.max

    init(capacity: Int, trace: Trace) {
        self.capacity = capacity
        var last = [Int](repeating: Self.never, count: trace.pages)
        var next = [Int](repeating: Self.never, count: trace.accesses.count)
        for index in trace.accesses.indices.reversed() {
            next[index] = last[trace.accesses[index]]
            last[trace.accesses[index]] = index
        }
        self.next = next
        // -1: not kept.
        due = [Int](repeating: -1, count: trace.pages)
    }

    mutating func access(_ page: Int) -> Bool {
        defer { time += 1 }
        let hit = due[page] >= 0
        let use = next[time]
        if !hit {
            if count == capacity { evict() }
            count += 1
        }
        due[page] = use
        push((use, page))
        return hit
    }

    // Entries of pages that were used since, or are gone, are out of date.
    private mutating func evict() {
        while let top = pop() {
            guard due[top.page] == top.use else { continue }
            due[top.page] = -1
            count -= 1
            return
        }
    }

    private mutating func push(_ item: (use: Int, page: Int)) {
        heap.append(item)
        var child = heap.count - 1
        while child > 0, heap[(child - 1) / 2].use < heap[child].use {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func pop() -> (use: Int, page: Int)? {
        guard let top = heap.first else { return nil }
        let last = heap.removeLast()
        guard !heap.isEmpty else { return top }
        heap[0] = last
        var parent = 0
        while true {
            var most = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].use > heap[most].use {
                most = child
            }
            if most == parent { return top }
            heap.swapAt(parent, most)
            parent = most
        }
    }
}
