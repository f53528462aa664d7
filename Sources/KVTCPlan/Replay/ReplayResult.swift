/// What the requests of a trace found in a setup. A request hits the leading run of its blocks that is there.
public struct ReplayResult: Hashable, Sendable {
    /// Blocks of all prompts.
    public var blocks = 0
    /// Those found in RAM.
    public var ramHits = 0
    /// Those found on disk only.
    public var diskHits = 0
    /// Tokens of blocks found.
    public var hitTokens = 0
    /// Bytes of all blocks stored, before coding.
    public var rawBytes = 0.0
    /// The same as they were stored.
    public var storedBytes = 0.0
    /// Blocks that had to go for want of room.
    public var dropped = 0

    /// Share of all blocks.
    public var hitRatio: Double { blocks > 0 ? Double(ramHits + diskHits) / Double(blocks) : 0 }
    /// Raw over stored bytes, with what stays exact.
    public var totalRatio: Double { storedBytes > 0 ? rawBytes / storedBytes : 1 }
}

/// What one request found.
public struct RequestHits: Hashable, Sendable {
    /// Blocks from its beginning.
    public var blocks: Int
    /// Those of them that were on disk only.
    public var onDisk: Int
    /// Their tokens.
    public var tokens: Int
}
