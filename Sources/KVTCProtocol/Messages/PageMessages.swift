// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// Where a page is.
public enum Residence: UInt8, Sendable, CaseIterable {
    /// Nowhere in this tenant's reach.
    case absent = 0
    /// In RAM, not coded yet.
    case raw = 1
    /// In RAM, coded.
    case coded = 2
    /// On disk only.
    case disk = 3
    /// With other machines only, as far as they answered in time. Said where both sides know ``Wire/featureShared``, else it is ``disk``.
    case shared = 4
}

/// What became of a pushed page.
public enum PushOutcome: UInt8, Sendable, CaseIterable {
    /// It is stored.
    case stored = 0
    /// A page with this key was there before, no worse than the session was promised; it stays, whatever the bytes.
    case present = 1
    /// No room, even after evicting what may be evicted.
    case full = 2
    /// One page is larger than the store takes.
    case tooLarge = 3
    /// It is stored, or one like it is there: rows with NaN or infinities stay lossless, and a finite page pushed later takes
    /// its place.
    case nonFinite = 4
}

/// What became of a pulled page.
public enum PullOutcome: UInt8, Sendable, CaseIterable {
    /// The bytes are there.
    case hit = 0
    /// No such page in this tenant's reach.
    case miss = 1
    /// The stored bytes failed their checksum; the page is gone.
    case corrupt = 2
    /// The entry's capacity is smaller than its layers need.
    case noSpace = 3
    /// The daemon is overloaded; ask again.
    case busy = 4
}

/// What happens to the pin of a page.
public enum PinAction: UInt8, Sendable, CaseIterable {
    /// It stays as it is.
    case keep = 0
    /// The page is never evicted from the store.
    case pin = 1
    /// The page is evicted like others.
    case unpin = 2
}

/// Asks which pages are there, and can keep them there for a while.
public struct LookupRequest: WireRequest {
    public typealias Reply = LookupReply
    public static let opcode = Opcode.lookup

    public var session: UInt32 = 0
    /// Milliseconds for which what is found stays fetchable; 0 for no lease.
    public var leaseMs: UInt32 = 0
    /// The keys in stream order.
    public var keys: [PageKey] = []

    public init() {}

    public init(session: UInt32, leaseMs: UInt32 = 0, keys: [PageKey]) {
        (self.session, self.leaseMs, self.keys) = (session, leaseMs, keys)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("leaseMs", &leaseMs)
        try coder.list("keys", &keys)
    }
}

/// Where pages are.
public struct LookupReply: WireMessage {
    /// The lease taken, 0 for none.
    public var lease: UInt64 = 0
    /// How many keys from the first one on are there without a gap.
    public var leadingRun: UInt32 = 0
    /// One a key.
    public var residence: [Residence] = []

    public init() {}

    public init(lease: UInt64, leadingRun: UInt32, residence: [Residence]) {
        (self.lease, self.leadingRun, self.residence) = (lease, leadingRun, residence)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("lease", &lease)
        try coder.field("leadingRun", &leadingRun)
        try coder.field("residence", &residence)
    }
}

/// One page to store.
public struct PushEntry: WireItem {
    static let typeName = "entry"
    static let byteCount = 56

    /// Its name.
    public var key = PageKey.zero
    /// The position of its first token in the session.
    public var firstPosition: UInt32 = 0
    /// How many tokens it has.
    public var tokens: UInt32 = 0
    /// Where its bytes start, in the arena or in the inline bytes.
    public var offset: UInt64 = 0
    /// How many bytes there are: tokens times bytes of a token.
    public var length: UInt64 = 0

    public init() {}

    public init(key: PageKey, firstPosition: UInt32, tokens: UInt32, offset: UInt64, length: UInt64) {
        self.key = key
        self.firstPosition = firstPosition
        self.tokens = tokens
        self.offset = offset
        self.length = length
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("entries.key", &key)
        try coder.field("entries.firstPosition", &firstPosition)
        try coder.field("entries.tokens", &tokens)
        try coder.field("entries.offset", &offset)
        try coder.field("entries.length", &length)
    }
}

/// Hands pages over.
public struct PushRequest: WireRequest {
    public typealias Reply = PushReply
    public static let opcode = Opcode.push

    public var session: UInt32 = 0
    /// The arena, or ``Wire/none`` for inline bytes.
    public var arena: UInt32 = 0
    /// The pages in stream order.
    public var entries: [PushEntry] = []
    /// The pages themselves when there is no arena.
    public var inline: ArraySlice<UInt8> = []

    public init() {}

    public init(session: UInt32, arena: UInt32, entries: [PushEntry], inline: ArraySlice<UInt8> = []) {
        (self.session, self.arena, self.entries, self.inline) = (session, arena, entries, inline)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("arena", &arena)
        try coder.list("entries", &entries)
        try coder.payload("inline", &inline)
    }
}

/// What became of pushed pages.
public struct PushReply: WireMessage {
    /// One an entry.
    public var outcomes: [PushOutcome] = []

    public init() {}

    public init(outcomes: [PushOutcome]) {
        self.outcomes = outcomes
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("outcomes", &outcomes)
    }
}
