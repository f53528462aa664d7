import KVTCModel
import KVTCProtocol
import KVTCSystem

/// Shared memory of one connection, with the number that requests name it by.
public struct ClientArena: Sendable {
    /// The number.
    public let number: UInt32
    /// The memory.
    public let memory: Arena
}

/// A page with its place in the token stream.
public struct ClientPage: Hashable, Sendable {
    /// Its name.
    public var key: PageKey
    /// The position of its first token.
    public var firstPosition: UInt32
    /// Its bytes, in the session's layout; a whole number of tokens.
    public var bytes: [UInt8]

    /// A page at the given position.
    public init(key: PageKey, firstPosition: UInt32, bytes: [UInt8]) {
        self.key = key
        self.firstPosition = firstPosition
        self.bytes = bytes
    }
}

/// A token stream, with whole pages going in and out. Finer control (layer ranges, leases) is in the requests themselves.
public struct ClientSession: Sendable {
    /// The connection that opened it.
    public let client: Client
    /// The daemon's number of it.
    public let number: UInt32
    /// The profile in use; empty for none.
    public let profile: [UInt8]
    /// Bytes of one token, all tensors.
    public let tokenBytes: Int
    /// Tokens of a full page.
    public let pageTokens: Int

    /// Opens the session that a request describes. `identity` says what keys and values depend on besides the token ids (at
    /// most `OpenIdentifiedSessionRequest.maximumIdentity` bytes): only pages of the same one are found. A daemon that
    /// cannot tell identities apart is not trusted with any.
    public init(_ client: Client, _ request: OpenSessionRequest, identity: [UInt8] = []) throws(ClientError) {
        let reply: OpenSessionReply
        var request = request
        request.policy = client.spoken(request.policy)
        if client.server.features & Wire.featureIdentity != 0 {
            reply = try client.call(OpenIdentifiedSessionRequest(request, identity: identity))
        } else if identity.isEmpty {
            reply = try client.call(request)
        } else {
            throw .refused(
                WireError(.badVersion, field: "identity", "\(client.server.server) knows no identities: upgrade it"))
        }
        guard let tokenBytes = Int(exactly: reply.tokenBytes), tokenBytes > 0 else {
            throw .violation("tokens of \(reply.tokenBytes) bytes")
        }
        self.client = client
        number = reply.session
        profile = reply.profile
        self.tokenBytes = tokenBytes
        pageTokens = Int(request.pageTokens)
    }

    /// Changes the policy.
    public func setPolicy(_ policy: Policy) throws(ClientError) -> SetPolicyReply {
        try client.call(SetPolicyRequest(session: number, policy: client.spoken(policy)))
    }

    /// Bytes of inline pages in one request: enough to fill the socket, few enough that the daemon stores some pages while
    /// it receives others.
    private static let inlineBytes = 4 << 20

    /// Pushes pages: through the arena in one request (throws when they do not fit), or inline without one.
    public func push(_ pages: [ClientPage], through arena: ClientArena? = nil) throws(ClientError) -> [PushOutcome] {
        guard let arena else { return try pushInline(pages) }
        var offset: UInt64 = 0
        for page in pages {
            guard page.bytes.withUnsafeBytes({ arena.memory.write($0, offset: offset) }) else {
                throw .refused(WireError(.arenaBounds, "the pages do not fit in the arena"))
            }
            offset += UInt64(page.bytes.count)
        }
        let request = PushRequest(session: number, arena: arena.number, entries: entries(pages[...]))
        return try client.call(request).outcomes
    }

    private func pushInline(_ pages: [ClientPage]) throws(ClientError) -> [PushOutcome] {
        var outcomes: [PushOutcome] = []
        var pending: [Pending<PushRequest>] = []
        var next = 0
        while next < pages.count || !pending.isEmpty {
            // Two requests under way: one is stored while the other one is on its way.
            if pending.count == 2 || next == pages.count {
                outcomes += try client.receive(pending.removeFirst()).outcomes
                continue
            }
            let begin = next
            var inline: [UInt8] = []
            repeat {
                inline += pages[next].bytes
                next += 1
            } while next < pages.count && inline.count + pages[next].bytes.count <= Self.inlineBytes
            let request = PushRequest(
                session: number, arena: Wire.none, entries: entries(pages[begin..<next]), inline: inline[...])
            pending.append(try client.send(request))
        }
        return outcomes
    }

    private func entries(_ pages: ArraySlice<ClientPage>) -> [PushEntry] {
        var offset: UInt64 = 0
        return pages.map { page in
            defer { offset += UInt64(page.bytes.count) }
            return PushEntry(
                key: page.key, firstPosition: page.firstPosition, tokens: UInt32(page.bytes.count / tokenBytes),
                offset: offset, length: UInt64(page.bytes.count))
        }
    }

    /// Whole pages; nil for those that are not to be had. Through the arena they must all fit in it at once.
    public func fetch(
        _ keys: [PageKey], through arena: ClientArena? = nil, lease: UInt64 = 0
    ) throws(ClientError) -> [[UInt8]?] {
        let capacity = UInt64(tokenBytes * pageTokens)
        let entries = keys.enumerated().map {
            PullEntry(key: $0.element, offset: arena == nil ? 0 : UInt64($0.offset) * capacity, capacity: capacity)
        }
        var pages = [[UInt8]?](repeating: nil, count: keys.count)
        var astray = false
        let request = PullRequest(session: number, lease: lease, arena: arena?.number ?? Wire.none, entries: entries)
        _ = try client.pull(request) { part in
            guard part.outcome == .hit else {
                // What came of the page before is worth nothing.
                if Int(part.entry) < pages.count { pages[Int(part.entry)] = nil }
                return
            }
            let bytes = arena.map { $0.memory.copy(offset: part.offset, length: part.length) } ?? Array(part.inline)
            guard let bytes, Int(part.entry) < pages.count else {
                astray = true
                return
            }
            pages[Int(part.entry), default: []] += bytes
        }
        guard !astray else { throw .violation("a part outside the arena or of no page asked for") }
        // The memory of an arena goes with its connection: zeros may have been copied.
        if arena != nil { try client.requireOpen() }
        return pages
    }

    /// Cuts the session's end: pages that end behind `tokens` leave it and stay in the store. Says where it ends now.
    public func truncate(to tokens: Int) throws(ClientError) -> TruncateReply {
        try client.call(TruncateRequest(session: number, tokens: UInt32(clamping: tokens)))
    }

    /// Ends the session; its pages stay.
    public func close() throws(ClientError) {
        _ = try client.call(CloseSessionRequest(session: number))
    }
}

extension Array {
    fileprivate subscript<Wrapped>(index: Int, default fallback: Wrapped) -> Wrapped where Element == Wrapped? {
        get { self[index] ?? fallback }
        set { self[index] = newValue }
    }
}

extension Client {
    /// A policy as far as the daemon knows what it says. Earlier ones code all pages at once.
    fileprivate func spoken(_ policy: Policy) -> Policy {
        var policy = policy
        if server.features & Wire.featureCode == 0 { policy.code = nil }
        return policy
    }
}
