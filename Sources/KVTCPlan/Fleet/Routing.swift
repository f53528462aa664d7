/// A router at work. It knows what it has sent where, and nothing of what the machines still have.
struct Routing {
    private let trace: Trace
    private let conversations: ConversationIndex
    private let folding: Folding
    private let router: Router
    private let prefill: Rates.Prefill
    private var turn: UInt64 = 0
    /// Where a conversation of a copy was last.
    private var last: [UInt64: Int] = [:]
    /// Where a block of a copy was last.
    private var blocks: [UInt64: Int] = [:]
    /// Seconds that each store had left to compute, and when that was.
    private var load: [Double]
    private var time = 0.0

    init(
        _ trace: Trace, _ conversations: ConversationIndex, _ folding: Folding, _ router: Router,
        _ prefill: Rates.Prefill
    ) {
        (self.trace, self.conversations, self.folding) = (trace, conversations, folding)
        (self.router, self.prefill) = (router, prefill)
        load = [Double](repeating: 0, count: folding.stores)
    }

    /// The machine for the next request.
    mutating func node(of visit: Visit) -> Int {
        defer { turn += 1 }
        switch router {
        case .roundRobin: return Int(turn % UInt64(folding.nodes))
        case .random: return any()
        case .sticky(let moved):
            let conversation = UInt64(visit.copy) << 32 | UInt64(conversations.numbers[Int(visit.request)])
            let home = last[conversation]
            var node = home ?? any()
            if let home, folding.nodes > 1, Mixed.share(Mixed.word(4, turn)) < moved {
                node = (home + 1 + Mixed.choice(Mixed.word(5, turn), below: folding.nodes - 1)) % folding.nodes
            }
            last[conversation] = node
            return node
        case .leastLoaded, .prefix: return soonest(visit)
        }
    }

    private func any() -> Int { Mixed.choice(Mixed.word(3, turn), below: folding.nodes) }

    private mutating func soonest(_ visit: Visit) -> Int {
        for store in load.indices { load[store] = max(0, load[store] - (visit.time - time)) }
        time = visit.time
        let request = trace.requests[Int(visit.request)]
        let names = trace.blocks[request.blocks].map { UInt64(visit.copy) << 32 | UInt64($0) }
        func seconds(_ known: Int) -> Double {
            prefill.seconds(
                from: min(known * trace.blockTokens, request.inputTokens), to: request.inputTokens)
        }
        // Of stores with equally much, any: machines are idle most of the time.
        let least = load.min() ?? 0
        let idle = load.indices.filter { load[$0] == least }
        let store = idle[Mixed.choice(Mixed.word(6, turn), below: idle.count)]
        let machines = (folding.nodes - 1 - store) / folding.stores + 1
        var node = store + folding.stores * Mixed.choice(Mixed.word(7, turn), below: machines)
        var work = seconds(0)
        if case .prefix = router {
            if let known = names.lastIndex(where: { blocks[$0] != nil }), let there = blocks[names[known]] {
                let rest = seconds(known + 1)
                if load[there % folding.stores] + rest < least + work { (node, work) = (there, rest) }
            }
            for name in names { blocks[name] = node }
        }
        load[node % folding.stores] += work
        return node
    }
}
