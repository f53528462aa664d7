import KVTCModel
import KVTCProtocol

/// A page as a block, with its place in the token stream.
public struct ClientBlock: Hashable, Sendable {
    /// Its name.
    public var key: PageKey
    /// The position of its first token.
    public var firstPosition: UInt32
    /// How many tokens it has.
    public var tokens: UInt32
    /// The block.
    public var bytes: [UInt8]

    /// A block at the given position.
    public init(key: PageKey, firstPosition: UInt32, tokens: UInt32, bytes: [UInt8]) {
        self.key = key
        self.firstPosition = firstPosition
        self.tokens = tokens
        self.bytes = bytes
    }
}

// Pages as they are stored. A daemon that has not agreed on `Wire.featureBlocks` refuses these requests.
extension ClientSession {
    /// Which pages are there, and how they are stored.
    public func lookupBlocks(_ keys: [PageKey], leaseMs: UInt32 = 0) throws(ClientError) -> LookupBlocksReply {
        try client.call(LookupBlocksRequest(session: number, leaseMs: leaseMs, keys: keys))
    }

    /// Pushes blocks, in one request.
    public func pushBlocks(_ blocks: [ClientBlock]) throws(ClientError) -> [PushOutcome] {
        var offset: UInt64 = 0
        let entries = blocks.map { block in
            defer { offset += UInt64(block.bytes.count) }
            return PushEntry(
                key: block.key, firstPosition: block.firstPosition, tokens: block.tokens, offset: offset,
                length: UInt64(block.bytes.count))
        }
        let inline = blocks.flatMap(\.bytes)
        let request = PushBlocksRequest(session: number, arena: Wire.none, entries: entries, inline: inline[...])
        return try client.call(request).outcomes
    }

    /// Whole blocks; nil for those that are not to be had.
    public func fetchBlocks(_ keys: [PageKey], lease: UInt64 = 0) throws(ClientError) -> [[UInt8]?] {
        var blocks = [[UInt8]?](repeating: nil, count: keys.count)
        let entries = keys.map { PullEntry(key: $0, offset: 0, capacity: UInt64(Wire.maximumBody)) }
        let request = PullBlocksRequest(session: number, lease: lease, arena: Wire.none, entries: entries)
        var astray = false
        _ = try client.pull(request) { part in
            guard Int(part.entry) < blocks.count else { return astray = true }
            if part.outcome == .hit { blocks[Int(part.entry)] = Array(part.inline) }
        }
        guard !astray else { throw .violation("a part of no page asked for") }
        return blocks
    }
}
