import KVTCModel

/// Changes a living session's policy.
public struct SetPolicyRequest: WireRequest {
    /// What is answered.
    public typealias Reply = SetPolicyReply
    /// The number of the request.
    public static let opcode = Opcode.setPolicy

    /// The session.
    public var session: UInt32
    /// The whole new policy.
    public var policy: Policy

    /// A request with the new policy.
    public init(session: UInt32, policy: Policy) {
        self.session = session
        self.policy = policy
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        policy.encode(to: &writer)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        policy = try Policy(from: &reader)
    }
}

/// What the new policy could and could not do.
public struct SetPolicyReply: WireMessage {
    /// Tokens of the session in pages that are not coded yet.
    public var rawTokens: UInt32
    /// Positions that the new policy protects and that are lossy already.
    public var alreadyCoded: [PositionRange]

    /// An answer with the state after the change.
    public init(rawTokens: UInt32, alreadyCoded: [PositionRange]) {
        self.rawTokens = rawTokens
        self.alreadyCoded = alreadyCoded
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(rawTokens)
        writer.write(list: alreadyCoded) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        rawTokens = try reader.readUInt32("rawTokens")
        alreadyCoded = try reader.readList("alreadyCoded", itemBytes: 8) { r, _ throws(WireError) in
            try PositionRange(from: &r)
        }
    }
}

/// Reads a session's policy.
public struct GetPolicyRequest: WireRequest {
    /// What is answered.
    public typealias Reply = GetPolicyReply
    /// The number of the request.
    public static let opcode = Opcode.getPolicy

    /// The session.
    public var session: UInt32

    /// A request about the session.
    public init(session: UInt32) {
        self.session = session
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
    }
}

/// A session's policy.
public struct GetPolicyReply: WireMessage {
    /// The policy in force.
    public var policy: Policy
    /// The position after the last token pushed.
    public var tokens: UInt32

    /// An answer with the policy.
    public init(policy: Policy, tokens: UInt32) {
        self.policy = policy
        self.tokens = tokens
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        policy.encode(to: &writer)
        writer.write(tokens)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        policy = try Policy(from: &reader)
        tokens = try reader.readUInt32("tokens")
    }
}

/// Cuts a token stream's end; the pages behind it stay in the store.
public struct TruncateRequest: WireRequest {
    /// What is answered.
    public typealias Reply = TruncateReply
    /// The number of the request.
    public static let opcode = Opcode.truncate

    /// The session.
    public var session: UInt32
    /// The position after the last token that stays.
    public var tokens: UInt32

    /// A request to cut the session there.
    public init(session: UInt32, tokens: UInt32) {
        self.session = session
        self.tokens = tokens
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(tokens)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        tokens = try reader.readUInt32("tokens")
    }
}

/// Where a token stream ends now.
public struct TruncateReply: WireMessage {
    /// The position after the last token of the last page that the session has left.
    public var tokens: UInt32
    /// Pages that left the session.
    public var pages: UInt32

    /// An answer with the end.
    public init(tokens: UInt32, pages: UInt32) {
        self.tokens = tokens
        self.pages = pages
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(tokens)
        writer.write(pages)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        tokens = try reader.readUInt32("tokens")
        pages = try reader.readUInt32("pages")
    }
}

/// Ends a token stream; its pages stay.
public struct CloseSessionRequest: WireRequest {
    /// What is answered.
    public typealias Reply = EmptyReply
    /// The number of the request.
    public static let opcode = Opcode.closeSession

    /// The session.
    public var session: UInt32

    /// A request about the session.
    public init(session: UInt32) {
        self.session = session
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
    }
}
