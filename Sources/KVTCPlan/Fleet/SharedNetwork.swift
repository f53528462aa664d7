/// Transfers from the shared tier's servers to machines. What is in flight to a machine shares its link evenly, and all together share
/// the servers' links; none gets less so that another could get more (Bertsekas, Gallager: Data Networks, 1992, 6.5.2).
struct SharedNetwork {
    private struct Link {
        /// Bytes that each transfer has got that has been there all the time.
        var served = 0.0
        /// Bytes a second for each.
        var rate = 0.0
        /// In the order in which they end: what ``served`` is then.
        var flows: [(end: Double, id: Int)] = []
    }

    private let link: Double
    private let servers: Double
    private var links: [Link]
    private var now = 0.0

    /// - Parameters:
    ///   - link: bytes a second of a machine's.
    ///   - servers: of all servers' together.
    init(nodes: Int, link: Double, servers: Double) {
        (self.link, self.servers) = (link, servers)
        links = [Link](repeating: Link(), count: nodes)
    }

    /// Goes on to a time; `done` is called with each transfer that ends until then, and when.
    mutating func advance(to time: Double, _ done: (Int, Double) -> Void) {
        while true {
            var (first, at) = (-1, Double.infinity)
            for (node, link) in links.enumerated() where !link.flows.isEmpty {
                let end = now + max(0, link.flows[0].end - link.served) / link.rate
                if end < at { (first, at) = (node, end) }
            }
            guard first >= 0, at <= time else { break }
            pass(at - now)
            now = at
            // It is there, whatever rounding says.
            let flow = links[first].flows.removeFirst()
            links[first].served = max(links[first].served, flow.end)
            share()
            done(flow.id, at)
        }
        guard time.isFinite else { return }
        pass(time - now)
        now = max(now, time)
    }

    /// Begins a transfer at the time that was gone on to.
    mutating func begin(_ id: Int, to node: Int, bytes: Double) {
        let end = links[node].served + bytes
        let place = links[node].flows.firstIndex { $0.end > end } ?? links[node].flows.endIndex
        links[node].flows.insert((end, id), at: place)
        share()
    }

    /// Bytes a second that one more transfer to a machine would have.
    func rate(joining node: Int) -> Double {
        var counts = links.map(\.flows.count)
        counts[node] += 1
        return rates(counts)[node]
    }

    private mutating func pass(_ seconds: Double) {
        guard seconds > 0 else { return }
        for node in links.indices where !links[node].flows.isEmpty { links[node].served += links[node].rate * seconds }
    }

    private mutating func share() {
        let rates = rates(links.map(\.flows.count))
        for node in links.indices { links[node].rate = rates[node] }
    }

    /// For each transfer of a machine that has so many. Those that their own link holds back most leave the rest to the others.
    private func rates(_ counts: [Int]) -> [Double] {
        var rates = [Double](repeating: 0, count: counts.count)
        var (left, flows) = (servers, counts.reduce(0, +))
        for node in counts.indices.filter({ counts[$0] > 0 }).sorted(by: { counts[$0] > counts[$1] }) {
            rates[node] = min(link / Double(counts[node]), left / Double(flows))
            left -= rates[node] * Double(counts[node])
            flows -= counts[node]
        }
        return rates
    }
}
