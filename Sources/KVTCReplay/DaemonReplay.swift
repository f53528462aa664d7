import KVTCClient
import KVTCModel
import KVTCPlan
import KVTCProtocol

/// Asks a real daemon for the prompts of a trace, one request after another as an engine would: look up, pull what is there, push
/// the rest, end the session. The model is small, so that its pages are; a block of the trace is a page.
public struct DaemonReplay {
    /// How the sessions' pages are coded.
    public enum Content: Sendable {
        /// Pages that lossless coding makes hardly smaller.
        case raw
        /// Lossless, of pages that shrink about so many times.
        case lossless(ratio: Double)
        /// Quantised to four bits, 32 values with a common scale: sinks and window stay exact.
        case quantised
    }

    /// Raw over coded bytes of pages that are quantised: of 32 halves there are 4 bits each, and a scale of 16.
    public static let quantisedRatio = 32.0 * 16 / (32 * 4 + 16)

    /// What of a trace the daemon had.
    public struct Result: Sendable {
        /// Blocks of all prompts.
        public var blocks = 0
        /// Those in the leading runs that were there.
        public var hits = 0
        /// Those of them that were on disk only.
        public var diskHits = 0
        /// Raw over stored bytes of the pages in the store at the end.
        public var ratio = 1.0
        /// Bytes of RAM over stored bytes: what a page is rounded up to, which is nothing beside a page of a real model.
        public var rounding = 1.0
        /// Pages that found no room.
        public var full = 0

        /// Share of all blocks.
        public var hitRatio: Double { blocks > 0 ? Double(hits) / Double(blocks) : 0 }
    }

    private let client: Client
    private let trace: Trace
    private let content: Content
    private let headDim: Int
    private let source: ClientArena
    private let target: ClientArena

    /// Bytes of a token, all layers: as `PageShape.tokenBytes` of a plan has it.
    public var tokenBytes: Int { 4 * headDim }

    private var pageBytes: Int { tokenBytes * trace.blockTokens }

    /// - Parameter headDim: elements of a key, and of a value, of the model's only layer and head.
    public init(_ client: Client, _ trace: Trace, _ content: Content, headDim: Int) throws(ClientError) {
        (self.client, self.trace, self.content, self.headDim) = (client, trace, content, headDim)
        let most = max(1, trace.requests.map(\.blocks.count).max() ?? 1)
        let page = 4 * headDim * trace.blockTokens
        source = try client.makeArena(bytes: most * page)
        target = try client.makeArena(bytes: most * page)
        let bytes = Self.page(bytes: page, row: 4 * headDim, content)
        for index in 0..<most {
            _ = bytes.withUnsafeBytes { source.memory.write($0, offset: UInt64(index * page)) }
        }
    }

    /// Finite halves that look random, and where pages are to shrink rows of zeros between two of them.
    private static func page(bytes: Int, row: Int, _ content: Content) -> [UInt8] {
        var period = 2
        if case .lossless(let ratio) = content { period = Int((2 * ratio).rounded()) }
        var state: UInt64 = 1
        return (0..<bytes).map { index in
            guard index / row % period < 2 else { return 0 }
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let byte = UInt8(truncatingIfNeeded: state >> 56)
            return index % 2 == 1 ? byte & 0xBF : byte
        }
    }

    private var policy: Policy {
        switch content {
        // Nothing leaves a window that large.
        case .raw: Policy(window: 1 << 20, mode: .lossless)
        case .lossless: Policy(sink: 0, window: 0, mode: .lossless)
        case .quantised: Policy(mode: .quant4)
        }
    }

    /// Replays all requests.
    /// - Parameter progress: called after each, with its number.
    public func run(progress: (Int) -> Void = { _ in }) throws -> Result {
        var result = Result()
        for (number, request) in trace.requests.enumerated() {
            try replay(request, &result)
            progress(number)
        }
        let status = try status()
        result.ratio = status.ratio ?? 1
        let (pages, ram) = (status.pages.raw + status.pages.coded, status.tiers.ram)
        if ram.pages > 0, status.bytes.stored > 0 {
            result.rounding = Double(ram.used) / Double(ram.pages) / (Double(status.bytes.stored) / Double(pages))
        }
        return result
    }

    /// The setup of a plan that stands for a daemon with so many bytes of RAM and disk, and for what its pages took there.
    public func setup(ram: Int, disk: Int, _ found: Result) -> Setup {
        let coding: Coding =
            if case .quantised = content { .transform(Self.quantisedRatio) } else { .lossless(found.ratio) }
        func scaled(_ bytes: Int) -> Int { Int(Double(bytes) / found.rounding) }
        return Setup(ram: scaled(ram), disk: scaled(disk), coding: coding)
    }

    private func replay(_ request: Trace.Request, _ result: inout Result) throws {
        let tensors = [Role.key, .value].map { TensorGeometry(layer: 0, role: $0, heads: 1, headDim: headDim) }
        let session = try ClientSession(
            client,
            OpenSessionRequest(
                name: "replay", tensors: tensors, layout: PageLayout(element: .f16, order: .tokenTensorHead),
                pageTokens: UInt32(trace.blockTokens), policy: policy))
        let keys = trace.blocks[request.blocks].map(Self.key)
        let found = try client.call(LookupRequest(session: session.number, keys: keys))
        let run = Int(found.leadingRun)
        if run > 0 {
            let entries = keys[..<run].enumerated().map { index, key in
                PullEntry(key: key, offset: UInt64(index * pageBytes), capacity: UInt64(pageBytes))
            }
            _ = try client.pull(
                PullRequest(session: session.number, arena: target.number, entries: entries), { _ in })
        }
        result.blocks += keys.count
        result.hits += run
        result.diskHits += found.residence[..<run].count { $0 == .disk }
        let step = Planner.pushedBlocks(blockTokens: trace.blockTokens)
        for begin in stride(from: run, to: keys.count, by: step) {
            try push(keys, begin..<min(begin + step, keys.count), request, session, &result)
            try waitForCoders()
        }
        _ = try client.call(CloseSessionRequest(session: session.number))
        if run < keys.count { try waitForCoders() }
    }

    private func push(
        _ keys: [PageKey], _ range: Range<Int>, _ request: Trace.Request, _ session: ClientSession,
        _ result: inout Result
    ) throws {
        let entries = range.map { index in
            let first = index * trace.blockTokens
            let tokens = min(trace.blockTokens, request.inputTokens - first)
            return PushEntry(
                key: keys[index], firstPosition: UInt32(first), tokens: UInt32(tokens),
                offset: UInt64(index * pageBytes), length: UInt64(tokens * tokenBytes))
        }
        let push = PushRequest(session: session.number, arena: source.number, entries: entries)
        result.full += try client.call(push).outcomes.count { $0 == .full }
    }

    /// A trace of an hour goes by in minutes: coders get the time that they would have had.
    private func waitForCoders() throws { while try status().queues.encode > 0 {} }

    private func status() throws -> StatusReport { try client.call(StatusRequest()).decoded() }

    private static func key(_ block: UInt32) -> PageKey {
        let word = UInt64(block) &* 0x9E37_79B9_7F4A_7C15
        return PageKey((0..<32).map { UInt8(truncatingIfNeeded: word >> UInt64($0 % 8 * 8)) })!
    }
}
