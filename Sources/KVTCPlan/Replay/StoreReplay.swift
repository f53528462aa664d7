import KVTCStore

/// Replays a trace against a store of a setup: the daemon's own, with its order of use, its tiers and its log. Only the pages are
/// smaller, and zeros (see ``Scale``).
///
/// Coders keep up with what is pushed.
struct StoreReplay {
    private let trace: Trace
    private let shape: PageShape
    private let setup: Setup
    private let scale: Scale
    private let store: Store
    private var hashes: [Int: UInt64] = [:]

    init(_ trace: Trace, _ shape: PageShape, _ setup: Setup) throws(StoreError) {
        (self.trace, self.shape, self.setup) = (trace, shape, setup)
        scale = Scale(setup, shape, blockTokens: trace.blockTokens)
        store = try Store.open(scale.configuration(setup))
    }

    /// Asks for every request's blocks in turn and stores those that are not there.
    /// - Parameter body: called after each request, with its number.
    mutating func run(_ body: (Int, RequestHits) -> Void) -> ReplayResult {
        var result = ReplayResult()
        for (number, request) in trace.requests.enumerated() {
            let keys = trace.blocks[request.blocks].map(Self.key)
            let hits = find(keys, request)
            result.blocks += keys.count
            result.ramHits += hits.blocks - hits.onDisk
            result.diskHits += hits.onDisk
            result.hitTokens += hits.tokens
            put(keys, from: hits.blocks, request, &result)
            body(number, hits)
        }
        let statistics = store.statistics
        precondition(statistics.corrupt == 0, "a page of zeros did not come back as such")
        result.dropped = Int(statistics.dropped)
        return result
    }

    /// As LOOKUP and PULL do.
    private func find(_ keys: [StoreKey], _ request: Trace.Request) -> RequestHits {
        let use = store.use(keys)
        let there = store.survey(keys[...])
        let run = there.prefix { $0.residence != .absent }
        let onDisk = run.indices.filter { run[$0].residence == .disk }
        for index in onDisk { _ = store.borrow(index, of: use) }
        return RequestHits(
            blocks: run.count, onDisk: onDisk.count, tokens: min(run.count * trace.blockTokens, request.inputTokens))
    }

    /// As PUSH and the coder do: raw first, some blocks at a time, and then each at the size that it has once it is coded.
    private mutating func put(_ keys: [StoreKey], from run: Int, _ request: Trace.Request, _ result: inout ReplayResult)
    {
        let step = Planner.pushedBlocks(blockTokens: trace.blockTokens)
        for begin in stride(from: run, to: keys.count, by: step) {
            let range = begin..<min(begin + step, keys.count)
            var coded: [(key: StoreKey, bytes: Double)] = []
            for index in range {
                let first = index * trace.blockTokens
                let tokens = trace.tokens(index, of: request)
                let raw = Double(tokens * shape.tokenBytes)
                guard put(keys[index], raw, first, after: keys[run..<index]) else { continue }
                let exact = shape.exact(first, first + tokens, of: request.inputTokens)
                coded.append((keys[index], setup.coding.rows(tokens, exact: exact) * Double(shape.tokenBytes)))
                result.rawBytes += raw
            }
            for (key, bytes) in coded {
                replace(key, bytes)
                result.storedBytes += bytes
            }
        }
    }

    private mutating func put(_ key: StoreKey, _ bytes: Double, _ first: Int, after: ArraySlice<StoreKey>) -> Bool {
        let length = scale.length(bytes)
        let hash = hash(ofZeros: length)
        let outcome = store.put(
            key, byteCount: length, attributes: PageAttributes(firstPosition: UInt32(first)), after: after,
            // Room comes zeroed.
            fill: { _ in hash })
        return outcome == .stored
    }

    private mutating func replace(_ key: StoreKey, _ bytes: Double) {
        if case .raw = setup.coding { return }
        let length = scale.length(bytes)
        let hash = hash(ofZeros: length)
        guard let attributes = store.attributes(key) else { return }
        _ = store.replace(key, byteCount: length, attributes: attributes, fill: { _ in hash })
    }

    private mutating func hash(ofZeros length: Int) -> UInt64 {
        if let known = hashes[length] { return known }
        let hash = [UInt8](repeating: 0, count: length).withUnsafeBytes { checksum($0) }
        hashes[length] = hash
        return hash
    }

    /// As names look that are hashes: every bit matters (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    private static func key(_ block: UInt32) -> StoreKey {
        var state = UInt64(block) &* 4
        func next() -> UInt64 {
            state &+= 1
            var word = state &* 0x9E37_79B9_7F4A_7C15
            word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
            word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
            return word ^ word >> 31
        }
        return StoreKey(tenant: 0, words: SIMD4(next(), next(), next(), next()))
    }
}
