// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVTCModel

/// A page as it is stored.
public struct StoredPage: WireItem {
    static let typeName = "page"
    static let byteCount = 14
    private static let unknownMode: UInt8 = 0xFF

    public var residence = Residence.absent
    /// Nil for one that is absent, and for a coded one that is only on disk: its header says.
    public var mode: Mode?
    public var tokens: UInt32 = 0
    /// Bytes of its block.
    public var length: UInt64 = 0

    public init() {}

    public init(residence: Residence, mode: Mode?, tokens: UInt32, length: UInt64) {
        (self.residence, self.mode, self.tokens, self.length) = (residence, mode, tokens, length)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("pages.residence", &residence)
        try coder.field("pages.mode", &mode, none: Self.unknownMode)
        try coder.field("pages.tokens", &tokens)
        try coder.field("pages.length", &length)
    }
}

/// Asks which pages are there and how they are stored, and can keep them there for a while.
public struct LookupBlocksRequest: WireRequest {
    public typealias Reply = LookupBlocksReply
    public static let opcode = Opcode.lookupBlocks

    public var lookup = LookupRequest()

    public init() {}

    public init(session: UInt32, leaseMs: UInt32 = 0, keys: [PageKey]) {
        lookup = LookupRequest(session: session, leaseMs: leaseMs, keys: keys)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) { try lookup.fields(&coder) }
}

/// Where pages are, and how they are stored.
public struct LookupBlocksReply: WireMessage {
    /// The lease taken, 0 for none.
    public var lease: UInt64 = 0
    /// How many keys from the first one on are there without a gap.
    public var leadingRun: UInt32 = 0
    /// One a key.
    public var pages: [StoredPage] = []

    public init() {}

    public init(lease: UInt64, leadingRun: UInt32, pages: [StoredPage]) {
        (self.lease, self.leadingRun, self.pages) = (lease, leadingRun, pages)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("lease", &lease)
        try coder.field("leadingRun", &leadingRun)
        try coder.list("pages", &pages)
    }
}

/// Gets pages back as they are stored. The reply is a stream of ``PullPart``, one an entry, and then a ``PullReply``.
public struct PullBlocksRequest: WireRequest {
    public typealias Reply = PullReply
    public static let opcode = Opcode.pullBlocks

    public var session: UInt32 = 0
    /// The lease that keeps the pages, or 0.
    public var lease: UInt64 = 0
    /// The arena to write to, or ``Wire/none`` for inline bytes.
    public var arena: UInt32 = 0
    public var entries: [PullEntry] = []

    public init() {}

    public init(session: UInt32, lease: UInt64 = 0, arena: UInt32, entries: [PullEntry]) {
        (self.session, self.lease, self.arena, self.entries) = (session, lease, arena, entries)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("lease", &lease)
        try coder.field("arena", &arena)
        try coder.list("entries", &entries)
    }
}

/// Hands over pages as blocks that the worker made.
public struct PushBlocksRequest: WireRequest {
    public typealias Reply = PushReply
    public static let opcode = Opcode.pushBlocks

    /// An entry's length is that of its block.
    public var push = PushRequest()

    public init() {}

    public init(session: UInt32, arena: UInt32, entries: [PushEntry], inline: ArraySlice<UInt8> = []) {
        push = PushRequest(session: session, arena: arena, entries: entries, inline: inline)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) { try push.fields(&coder) }
}

/// Asks for the file of a session's profile, given with the reply as a file descriptor.
public struct ProfileFileRequest: WireRequest {
    public typealias Reply = ProfileFileReply
    public static let opcode = Opcode.profileFile

    public var session: UInt32 = 0

    public init() {}

    public init(session: UInt32) { self.session = session }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
    }
}

/// The size of the file; its descriptor comes with the first byte of the frame.
public struct ProfileFileReply: WireMessage {
    /// SHA-256 of the file.
    public var profile: [UInt8] = []
    public var bytes: UInt64 = 0

    public init() {}

    public init(profile: [UInt8], bytes: UInt64) {
        (self.profile, self.bytes) = (profile, bytes)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("profile", &profile)
        try coder.field("bytes", &bytes)
    }
}
