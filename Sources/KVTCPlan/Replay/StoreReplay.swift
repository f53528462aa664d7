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
    private(set) var result = ReplayResult()
    private var hashes: [Int: UInt64] = [:]

    init(_ trace: Trace, _ shape: PageShape, _ setup: Setup) throws(StoreError) {
        (self.trace, self.shape, self.setup) = (trace, shape, setup)
        scale = Scale(setup, shape, blockTokens: trace.blockTokens)
        store = try Store.open(scale.configuration(setup))
    }

    /// Asks for every request's blocks in turn and stores those that are not there.
    /// - Parameter body: called after each request, with its number.
    mutating func run(_ body: (Int, RequestHits) -> Void) -> ReplayResult {
        for (number, request) in trace.requests.enumerated() { body(number, visit(request)) }
        return finish()
    }

    /// Asks for one request's blocks and stores those that are not there.
    /// - Parameter view: requests of different views have no block in common, whatever their numbers.
    mutating func visit(_ request: Trace.Request, view: UInt32 = 0) -> RequestHits {
        let keys = trace.blocks[request.blocks].map { Self.key($0, view) }
        let hits = find(keys, request)
        result.blocks += keys.count
        result.ramHits += hits.blocks - hits.onDisk
        result.diskHits += hits.onDisk
        result.hitTokens += hits.tokens
        put(keys, from: hits.blocks, request)
        return hits
    }

    /// What all visits found.
    mutating func finish() -> ReplayResult {
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
    private mutating func put(_ keys: [StoreKey], from run: Int, _ request: Trace.Request) {
        let step = Planner.pushedBlocks(blockTokens: trace.blockTokens)
        for begin in stride(from: run, to: keys.count, by: step) {
            let range = begin..<min(begin + step, keys.count)
            var coded: [(key: StoreKey, bytes: Double)] = []
            for index in range {
                let first = index * trace.blockTokens
                let tokens = trace.tokens(index, of: request)
                let raw = Double(tokens * shape.tokenBytes)
                guard put(keys[index], raw, first, after: keys[run..<index]) else { continue }
                coded.append((keys[index], trace.storedBytes(index, of: request, shape, setup.coding)))
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

    /// As names look that are hashes.
    private static func key(_ block: UInt32, _ view: UInt32) -> StoreKey {
        let first = (UInt64(view) << 32 | UInt64(block)) &* 4
        return StoreKey(
            tenant: 0,
            words: SIMD4(Mixed.word(first &+ 1), Mixed.word(first &+ 2), Mixed.word(first &+ 3), Mixed.word(first &+ 4))
        )
    }
}
