/// Requests in the order in which they came, with their prompts as blocks: equal blocks have equal numbers, and stand for equal
/// tokens after equal tokens, as the pages of a KV cache do.
public struct Trace: Sendable {
    /// One request.
    public struct Request: Sendable {
        /// Milliseconds since the first request that has a time; nil where the trace does not tell.
        public var time: Double?
        /// Tokens of the prompt.
        public var inputTokens: Int
        /// Tokens of the answer; nil where the trace does not tell.
        public var outputTokens: Int?
        /// Where ``Trace/blocks`` has those of its prompt.
        public var blocks: Range<Int>
    }

    /// Tokens of a block; the last one of a prompt may have fewer.
    public let blockTokens: Int
    /// In order.
    public private(set) var requests: [Request] = []
    /// The blocks of all prompts, one after another: numbers below ``distinctBlocks``.
    public private(set) var blocks: [UInt32] = []
    private var numbers: [UInt64: UInt32] = [:]

    /// Different blocks.
    public var distinctBlocks: Int { numbers.count }

    /// Tokens of all prompts.
    public var inputTokens: Int { requests.reduce(0) { $0 + $1.inputTokens } }

    /// Tokens of all answers, as far as the trace tells.
    public var outputTokens: Int { requests.reduce(0) { $0 + ($1.outputTokens ?? 0) } }

    /// Seconds from the first request to the last; nil without times.
    public var seconds: Double? {
        let times = requests.compactMap(\.time)
        guard let first = times.min(), let last = times.max(), last > first else { return nil }
        return (last - first) / 1000
    }

    /// More tokens than a prompt can have: no model takes a tenth of it.
    public static let maximumTokens = 1 << 24

    /// A trace without requests.
    public init(blockTokens: Int) {
        precondition(blockTokens > 0)
        self.blockTokens = blockTokens
    }

    /// Blocks of a prompt.
    public func blockCount(tokens: Int) -> Int { (tokens - 1) / blockTokens + 1 }

    /// Adds a request whose prompt has the blocks named by these hashes.
    /// - Parameter inputTokens: 1 to ``maximumTokens``, in as many blocks as there are hashes.
    public mutating func add(time: Double?, inputTokens: Int, outputTokens: Int?, hashes: some Collection<UInt64>) {
        precondition((1...Self.maximumTokens).contains(inputTokens) && hashes.count == blockCount(tokens: inputTokens))
        let begin = blocks.count
        for hash in hashes {
            let number = numbers[hash] ?? UInt32(numbers.count)
            numbers[hash] = number
            blocks.append(number)
        }
        requests.append(
            Request(
                time: time, inputTokens: inputTokens, outputTokens: outputTokens, blocks: begin..<blocks.count))
    }

    /// Tokens of block `index` of a request.
    func tokens(_ index: Int, of request: Request) -> Int {
        min(blockTokens, request.inputTokens - index * blockTokens)
    }
}
