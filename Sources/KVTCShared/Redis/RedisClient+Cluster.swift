import KVTCSystem

/// Which server a command goes to, and how that is learnt.
extension RedisClient {
    /// Between one question for the map and the next.
    private static let refreshPause: UInt64 = 250_000_000

    /// Hands commands to the servers of their keys.
    func dispatch(_ requests: [RedisRequest], _ now: UInt64) {
        struct Batch {
            var node: Node
            var lanes = [[RedisRequest]](repeating: [], count: RedisLane.allCases.count)
        }
        var (batches, rejected): ([Batch], [RedisRequest]) = ([], [])
        var places: [Int: Int] = [:]
        var fault = RedisFault.unreachable
        let isMapWanted = state.withLock { state in
            guard !state.isClosed else {
                rejected = requests
                return false
            }
            // Any server of the cluster sends on what is not its own, until the map is there.
            let anyIndex = -1
            var isMapWanted = settings.url.isCluster && state.map == nil
            for request in requests {
                var index = anyIndex
                if let map = state.map, let slot = request.command.slot {
                    guard let owner = map[slot] else {
                        (isMapWanted, fault) = (true, .down)
                        rejected.append(request)
                        continue
                    }
                    index = owner
                }
                if places[index] == nil {
                    guard let node = index < 0 ? anyNode(&state) : node(state.map!.masters[index], &state) else {
                        rejected.append(request)
                        continue
                    }
                    if settings.url.isCluster, node.isOpen { isMapWanted = true }
                    places[index] = batches.count
                    batches.append(Batch(node: node))
                }
                batches[places[index]!].lanes[request.command.lane.rawValue].append(request)
            }
            return isMapWanted
        }
        if isMapWanted { refresh(now) }
        for batch in batches {
            for lane in RedisLane.allCases where !batch.lanes[lane.rawValue].isEmpty {
                batch.node.accept(batch.lanes[lane.rawValue], lane)
            }
        }
        for request in rejected { request.done(.failure(fault)) }
    }

    /// A server that is not left alone, where there is one.
    private func anyNode(_ state: inout State) -> Node? {
        let addresses = (state.map?.masters ?? []) + settings.url.addresses
        var last: Node?
        for address in addresses {
            guard let node = node(address, &state) else { continue }
            last = node
            if !node.isOpen { return node }
        }
        return last
    }

    /// Takes over a command that a server sent on.
    func redirect(_ request: RedisRequest, _ redirect: RedisRedirect, from asked: RedisAddress) -> Bool {
        guard settings.url.isCluster, request.hops < RedisClient.mostHops,
            let address = ClusterMap.address(redirect.host ?? "", redirect.port, asked)
        else { return false }
        let target: Node? = state.withLock { state in
            if redirect.kind == .moved { state.map?.assign(redirect.slot, address) }
            return node(address, &state)
        }
        guard let target else { return false }
        if redirect.kind == .moved { refresh(MonotonicClock.nanoseconds) }
        target.accept([request.sentOn(isAsking: redirect.kind == .ask)], request.command.lane)
        return true
    }

    /// Calls with the masters once they are known, or with the servers of the URL where nothing can be learnt from them.
    func withMasters(_ body: @escaping @Sendable ([RedisAddress]) -> Void) {
        let isWaiting = state.withLock { state in
            guard settings.url.isCluster, state.map == nil, !state.isClosed else { return false }
            state.whenRefreshed.append { [weak self] in body(self?.masters ?? []) }
            state.refreshedAt = nil
            return true
        }
        if isWaiting { refresh(MonotonicClock.nanoseconds) } else { body(masters) }
    }

    /// Asks for the map anew, unless that is under way or was done just now.
    func refresh(_ now: UInt64) {
        let candidates: [RedisAddress] = state.withLock { state in
            guard !state.isClosed, !state.isRefreshing,
                state.refreshedAt.map({ now >= $0 + RedisClient.refreshPause }) ?? true
            else { return [] }
            state.isRefreshing = true
            var seen: Set<RedisAddress> = []
            let all = ((state.map?.masters ?? []) + settings.url.addresses).filter { seen.insert($0).inserted }
            return all
        }
        if !candidates.isEmpty { ask(candidates[...]) }
    }

    private func ask(_ candidates: ArraySlice<RedisAddress>) {
        guard let first = candidates.first else { return refreshed(nil) }
        let deadline = MonotonicClock.nanoseconds + settings.patience
        send(RedisCommand("CLUSTER", "SLOTS"), to: first, until: deadline) { [weak self] result in
            guard let self else { return }
            if case .success(let value) = result, let map = ClusterMap(value, asked: first), !map.masters.isEmpty {
                refreshed(map)
            } else {
                ask(candidates.dropFirst())
            }
        }
    }

    private func refreshed(_ map: ClusterMap?) {
        let (gone, isNews, waiting) = state.withLock { state in
            state.isRefreshing = false
            state.refreshedAt = MonotonicClock.nanoseconds
            defer { state.whenRefreshed = [] }
            guard let map, !state.isClosed else { return ([Node](), false, state.whenRefreshed) }
            let isNews = Set(state.map?.masters ?? []) != Set(map.masters)
            state.map = map
            let gone = state.nodes.filter { !map.masters.contains($0.key) }
            for address in gone.keys { state.nodes[address] = nil }
            return (Array(gone.values), isNews, state.whenRefreshed)
        }
        for node in gone { node.end(.retired) }
        if isNews, let map { log(.masters(map.masters)) }
        for body in waiting { body() }
    }
}
