/// The shared tier of a fleet and its network, as requests come whose machines have found what they have.
///
/// What a machine finds does not depend on the shared tier, since what it fetches and what it computes is there afterwards alike. So its
/// requests are replayed once, whatever the network and the budget.
struct FleetRun {
    private let trace: Trace
    private let shape: PageShape
    private let coding: Coding
    private let rates: Rates
    private let prefill: Rates.Prefill
    private let fleet: Fleet
    private let folding: Folding

    private var cache: SharedCache
    private var distances: ReuseDistance?
    private var network: SharedNetwork
    private var writers: [WriteBehind]
    private var result = FleetResult()
    /// Seconds to the first token, by visit.
    private var alone: [Double] = []
    private var shared: [Double] = []
    private var flights: [Int: Flight] = [:]
    private var gpus: (alone: [Double], shared: [Double])
    private var needs: [Int: Int] = [:]

    /// A request that waits for what it fetches.
    private struct Flight {
        var visit: Visit
        /// Seconds: to decode what comes, and to compute what remains.
        var decoding, rest: Double
    }

    init(
        _ trace: Trace, _ shape: PageShape, _ coding: Coding, _ rates: Rates, _ prefill: Rates.Prefill, _ fleet: Fleet,
        _ folding: Folding
    ) {
        (self.trace, self.shape, self.coding, self.fleet, self.folding) = (trace, shape, coding, fleet, folding)
        (self.rates, self.prefill) = (rates, prefill)
        cache = SharedCache(budget: fleet.budget.map { Int(Double($0) * folding.share) })
        distances = fleet.budget == nil ? ReuseDistance() : nil
        let servers = Double(fleet.servers) * fleet.link * folding.share
        network = SharedNetwork(nodes: folding.stores, link: fleet.link, servers: servers)
        let writing = min(fleet.link, servers / Double(folding.stores))
        let idle = [Double](repeating: 0, count: folding.stores)
        gpus = (idle, idle)
        writers = [WriteBehind](repeating: WriteBehind(rate: writing), count: folding.stores)
    }

    /// - Parameter hits: what each visit found at its machine.
    mutating func run(_ visits: Visits, _ hits: [RequestHits]) -> FleetResult {
        for (number, visit) in visits.all.enumerated() {
            land(visit.time)
            take(number, visit, hits[number])
        }
        land(.infinity)
        (result.requests, result.seconds) = (visits.all.count, visits.seconds)
        (result.stores, result.share) = (folding.stores, folding.share)
        result.sharedBytes = Double(cache.bytes)
        let time = visits.seconds * Double(folding.stores)
        result.alone = Self.times(alone, busy: result.alone.busy / time)
        result.shared = Self.times(shared, busy: result.shared.busy / time)
        result.needs = needs.sorted { $0.key < $1.key }.map { (Double($0.key) / folding.share, $0.value) }
        return result
    }

    private mutating func land(_ time: Double) {
        var ended: [(id: Int, at: Double)] = []
        network.advance(to: time) { ended.append(($0, $1)) }
        for (id, at) in ended {
            guard let flight = flights.removeValue(forKey: id) else { continue }
            let seconds = at - flight.visit.time
            result.fetchSeconds += seconds
            let ready = flight.visit.time + 2 * fleet.roundTrip + max(seconds, flight.decoding)
            shared[id] = Self.compute(flight.rest, flight.visit, ready, &gpus.shared)
        }
    }

    private mutating func take(_ number: Int, _ visit: Visit, _ hits: RequestHits) {
        let request = trace.requests[Int(visit.request)]
        let names = trace.blocks[request.blocks].map { UInt64(visit.copy) << 32 | UInt64($0) }
        result.blocks += names.count
        result.here += hits.blocks
        let own = ownSeconds(hits, request)
        let ownRest = prefill.seconds(from: own.from, to: request.inputTokens)
        let ready = visit.time + own.seconds
        alone.append(Self.compute(ownRest, visit, ready, &gpus.alone))
        result.alone.busy += ownRest

        let found = find(names, hits.blocks, visit.time)
        let tokens = min((hits.blocks + found.count) * trace.blockTokens, request.inputTokens)
        let rest = prefill.seconds(from: tokens, to: request.inputTokens)
        if found.count > 0 {
            result.finds += 1
            result.there += found.count
            result.thereTokens += tokens - hits.tokens
            result.thereBytes += Double(found.bytes)
            result.thereSeconds += prefill.seconds(from: hits.tokens, to: tokens)
        }
        let decoding = decodingSeconds(hits, tokens)
        let fetching =
            fleet.roundTrip + max(Double(found.bytes) / network.rate(joining: visit.store), decoding) + rest
        let isFetched = found.count > 0 && fetching < own.seconds + ownRest
        result.shared.busy += isFetched ? rest : ownRest
        write(names, from: hits.blocks, request, visit, after: isFetched ? rest : ownRest)
        guard isFetched else {
            let asking = hits.blocks < names.count ? fleet.roundTrip : 0
            shared.append(Self.compute(ownRest, visit, ready + asking, &gpus.shared))
            return
        }
        result.fetches += 1
        result.fetched += found.count
        result.fetchedBytes += Double(found.bytes)
        // Until it lands.
        shared.append(.nan)
        flights[number] = Flight(visit: visit, decoding: decoding, rest: rest)
        network.begin(number, to: visit.store, bytes: Double(found.bytes))
    }

    /// Prompts are computed one after another, in the order in which they can be: seconds from the visit to the first token.
    private static func compute(_ seconds: Double, _ visit: Visit, _ ready: Double, _ free: inout [Double]) -> Double {
        free[visit.store] = max(free[visit.store], ready) + seconds
        return free[visit.store] - visit.time
    }

    /// What the machine brings back itself, no more than pays: until which token, and in how long.
    private func ownSeconds(_ hits: RequestHits, _ request: Trace.Request) -> (from: Int, seconds: Double) {
        let seconds = decodingSeconds(hits, hits.tokens)
        return seconds < prefill.seconds(from: 0, to: hits.tokens) ? (hits.tokens, seconds) : (0, 0)
    }

    /// To read what is on the machine's disk, and to decode so many tokens.
    private func decodingSeconds(_ hits: RequestHits, _ tokens: Int) -> Double {
        let disk = Double(hits.onDisk * trace.blockTokens * shape.tokenBytes) / coding.ratio
        return disk / (rates.diskBytesPerSecond ?? .infinity) + Double(tokens)
            / (rates.restore[coding.ratio] ?? .infinity)
    }

    /// The leading run of blocks that the shared tier has beyond those of the machine.
    private mutating func find(_ names: [UInt64], _ first: Int, _ time: Double) -> (count: Int, bytes: Int) {
        var (count, bytes, need) = (0, 0, 0)
        for name in names[first...] {
            guard let length = cache.bytes(name, at: time) else { break }
            count += 1
            bytes += length
            guard let distances else { continue }
            need = max(need, distances.distance(name) ?? 0)
            needs[need, default: 0] += 1
        }
        return (count, bytes)
    }

    /// Uses all blocks that the machine had to ask for, the first ones first: Redis' clock counts seconds, so which of them goes first is
    /// chance, and the first takes all others with it. Writes those that are missing.
    private mutating func write(
        _ names: [UInt64], from first: Int, _ request: Trace.Request, _ visit: Visit, after computing: Double
    ) {
        for index in names.indices[first...] {
            let bytes = Int(trace.storedBytes(index, of: request, shape, coding).rounded())
            if !cache.use(names[index]) {
                guard let since = writers[visit.store].write(bytes, at: visit.time) else {
                    result.heldBackBytes += Double(bytes)
                    continue
                }
                result.writtenBytes += Double(bytes)
                cache.add(names[index], bytes: bytes, since: since + computing)
            }
            distances?.use(names[index], bytes: bytes)
        }
    }

    private static func times(_ seconds: [Double], busy: Double) -> FleetResult.Times {
        let sorted = seconds.sorted()
        guard !sorted.isEmpty else { return FleetResult.Times() }
        func at(_ share: Double) -> Double { sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))] }
        return FleetResult.Times(
            mean: sorted.reduce(0, +) / Double(sorted.count), median: at(0.5), p99: at(0.99), busy: busy)
    }
}
