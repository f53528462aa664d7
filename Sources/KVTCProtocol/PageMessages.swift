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
    /// What is answered.
    public typealias Reply = LookupReply
    /// The number of the request.
    public static let opcode = Opcode.lookup

    /// The session.
    public var session: UInt32
    /// Milliseconds for which what is found stays fetchable; 0 for no lease.
    public var leaseMs: UInt32
    /// The keys in stream order.
    public var keys: [PageKey]

    /// A question about the given keys.
    public init(session: UInt32, leaseMs: UInt32 = 0, keys: [PageKey]) {
        self.session = session
        self.leaseMs = leaseMs
        self.keys = keys
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(leaseMs)
        writer.write(list: keys) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        leaseMs = try reader.readUInt32("leaseMs")
        keys = try reader.readKeys("keys")
    }
}

/// Where pages are.
public struct LookupReply: WireMessage {
    /// The lease taken, 0 for none.
    public var lease: UInt64
    /// How many keys from the first one on are there without a gap.
    public var leadingRun: UInt32
    /// One a key.
    public var residence: [Residence]

    /// An answer with one residence a key.
    public init(lease: UInt64, leadingRun: UInt32, residence: [Residence]) {
        self.lease = lease
        self.leadingRun = leadingRun
        self.residence = residence
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(lease)
        writer.write(leadingRun)
        writer.write(residence.map(\.rawValue))
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        lease = try reader.readUInt64("lease")
        leadingRun = try reader.readUInt32("leadingRun")
        residence = try reader.readCases("residence")
    }
}

/// One page to store.
public struct PushEntry: WireMessage {
    static let byteCount = 56

    /// Its name.
    public var key: PageKey
    /// The position of its first token in the session.
    public var firstPosition: UInt32
    /// How many tokens it has.
    public var tokens: UInt32
    /// Where its bytes start, in the arena or in the inline bytes.
    public var offset: UInt64
    /// How many bytes there are: tokens times bytes of a token.
    public var length: UInt64

    /// A page at the given place of the arena or of the inline bytes.
    public init(key: PageKey, firstPosition: UInt32, tokens: UInt32, offset: UInt64, length: UInt64) {
        self.key = key
        self.firstPosition = firstPosition
        self.tokens = tokens
        self.offset = offset
        self.length = length
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        key.encode(to: &writer)
        writer.write(firstPosition)
        writer.write(tokens)
        writer.write(offset)
        writer.write(length)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        key = try PageKey(from: &reader, field: "entries.key")
        firstPosition = try reader.readUInt32("entries.firstPosition")
        tokens = try reader.readUInt32("entries.tokens")
        offset = try reader.readUInt64("entries.offset")
        length = try reader.readUInt64("entries.length")
    }
}

/// Hands pages over.
public struct PushRequest: WireRequest {
    /// What is answered.
    public typealias Reply = PushReply
    /// The number of the request.
    public static let opcode = Opcode.push

    /// The session.
    public var session: UInt32
    /// The arena, or ``Wire/none`` for inline bytes.
    public var arena: UInt32
    /// The pages in stream order.
    public var entries: [PushEntry]
    /// The pages themselves when there is no arena.
    public var inline: ArraySlice<UInt8>

    /// A request with pages in an arena, or inline.
    public init(session: UInt32, arena: UInt32, entries: [PushEntry], inline: ArraySlice<UInt8> = []) {
        self.session = session
        self.arena = arena
        self.entries = entries
        self.inline = inline
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(arena)
        writer.write(list: entries) { $0.encode(to: &$1) }
        writer.write(payload: inline)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        arena = try reader.readUInt32("arena")
        entries = try reader.readList("entries", itemBytes: PushEntry.byteCount) { r, _ throws(WireError) in
            try PushEntry(from: &r)
        }
        inline = try reader.readBytes("inline")
    }
}

/// What became of pushed pages.
public struct PushReply: WireMessage {
    /// One an entry.
    public var outcomes: [PushOutcome]

    /// An answer with one outcome an entry.
    public init(outcomes: [PushOutcome]) {
        self.outcomes = outcomes
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(outcomes.map(\.rawValue))
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        outcomes = try reader.readCases("outcomes")
    }
}
