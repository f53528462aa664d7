// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// Brings pages from disk to RAM before they are pulled.
public struct PrefetchRequest: WireRequest {
    public typealias Reply = PrefetchReply
    public static let opcode = Opcode.prefetch

    public var session: UInt32 = 0
    public var keys: [PageKey] = []

    public init() {}

    public init(session: UInt32, keys: [PageKey]) {
        (self.session, self.keys) = (session, keys)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.list("keys", &keys)
    }
}

/// How much there was to bring.
public struct PrefetchReply: WireMessage {
    /// Pages that were on disk only.
    public var queued: UInt32 = 0

    public init() {}

    public init(queued: UInt32) {
        self.queued = queued
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("queued", &queued)
    }
}

/// Changes pin and time to live of pages.
public struct TouchRequest: WireRequest {
    public typealias Reply = TouchReply
    public static let opcode = Opcode.touch

    public var session: UInt32 = 0
    /// What happens to the pin.
    public var pin = PinAction.keep
    /// Seconds to live from now on, 0 for no limit, ``Wire/none`` for no change.
    public var ttlSeconds: UInt32 = 0
    public var keys: [PageKey] = []

    public init() {}

    public init(session: UInt32, pin: PinAction = .keep, ttlSeconds: UInt32 = Wire.none, keys: [PageKey]) {
        (self.session, self.pin, self.ttlSeconds, self.keys) = (session, pin, ttlSeconds, keys)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("pin", &pin)
        try coder.field("ttlSeconds", &ttlSeconds)
        try coder.list("keys", &keys)
    }
}

/// How many pages were there.
public struct TouchReply: WireMessage {
    /// Pages that were there.
    public var found: UInt32 = 0

    public init() {}

    public init(found: UInt32) {
        self.found = found
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("found", &found)
    }
}

/// Forgets pages, used by sessions or not. Without keys: those of the session that no other one uses, or all of the tenant.
public struct DropRequest: WireRequest {
    public typealias Reply = DropReply
    public static let opcode = Opcode.drop

    /// The session, or ``Wire/none`` for the whole tenant.
    public var session: UInt32 = 0
    /// The pages; none for all.
    public var keys: [PageKey] = []

    public init() {}

    public init(session: UInt32, keys: [PageKey]) {
        (self.session, self.keys) = (session, keys)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.list("keys", &keys)
    }
}

/// How many pages were forgotten.
public struct DropReply: WireMessage {
    /// Pages that were there.
    public var dropped: UInt32 = 0

    public init() {}

    public init(dropped: UInt32) {
        self.dropped = dropped
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("dropped", &dropped)
    }
}
