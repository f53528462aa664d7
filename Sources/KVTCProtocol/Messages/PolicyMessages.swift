// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVTCModel

/// Changes a living session's policy.
public struct SetPolicyRequest: WireRequest {
    public typealias Reply = SetPolicyReply
    public static let opcode = Opcode.setPolicy

    public var session: UInt32 = 0
    /// The whole new policy.
    public var policy = Policy()

    public init() {}

    public init(session: UInt32, policy: Policy) {
        (self.session, self.policy) = (session, policy)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.message("policy", &policy)
    }
}

/// What the new policy could and could not do.
public struct SetPolicyReply: WireMessage {
    /// Tokens of the session in pages that are not coded yet.
    public var rawTokens: UInt32 = 0
    /// Positions that the new policy protects and that are lossy already.
    public var alreadyCoded: [PositionRange] = []

    public init() {}

    public init(rawTokens: UInt32, alreadyCoded: [PositionRange]) {
        (self.rawTokens, self.alreadyCoded) = (rawTokens, alreadyCoded)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("rawTokens", &rawTokens)
        try coder.list("alreadyCoded", &alreadyCoded)
    }
}

/// Reads a session's policy.
public struct GetPolicyRequest: WireRequest {
    public typealias Reply = GetPolicyReply
    public static let opcode = Opcode.getPolicy

    public var session: UInt32 = 0

    public init() {}

    public init(session: UInt32) {
        self.session = session
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
    }
}

/// A session's policy.
public struct GetPolicyReply: WireMessage {
    public var policy = Policy()
    /// The position after the last token pushed.
    public var tokens: UInt32 = 0

    public init() {}

    public init(policy: Policy, tokens: UInt32) {
        (self.policy, self.tokens) = (policy, tokens)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.message("policy", &policy)
        try coder.field("tokens", &tokens)
    }
}

/// Cuts a token stream's end; the pages behind it stay in the store.
public struct TruncateRequest: WireRequest {
    public typealias Reply = TruncateReply
    public static let opcode = Opcode.truncate

    public var session: UInt32 = 0
    /// The position after the last token that stays.
    public var tokens: UInt32 = 0

    public init() {}

    public init(session: UInt32, tokens: UInt32) {
        (self.session, self.tokens) = (session, tokens)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("tokens", &tokens)
    }
}

/// Where a token stream ends now.
public struct TruncateReply: WireMessage {
    /// The position after the last token of the last page that the session has left.
    public var tokens: UInt32 = 0
    /// Pages that left the session.
    public var pages: UInt32 = 0

    public init() {}

    public init(tokens: UInt32, pages: UInt32) {
        (self.tokens, self.pages) = (tokens, pages)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("tokens", &tokens)
        try coder.field("pages", &pages)
    }
}

/// Ends a token stream; its pages stay.
public struct CloseSessionRequest: WireRequest {
    public typealias Reply = EmptyReply
    public static let opcode = Opcode.closeSession

    public var session: UInt32 = 0

    public init() {}

    public init(session: UInt32) {
        self.session = session
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
    }
}
