// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// An answer that says only that it is done.
public struct EmptyReply: WireMessage {
    public init() {}

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {}
}

/// Asks for shared memory, given with the reply as a file descriptor.
public struct ArenaRequest: WireRequest {
    public typealias Reply = ArenaReply
    public static let opcode = Opcode.arena

    public var bytes: UInt64 = 0

    public init() {}

    public init(bytes: UInt64) {
        self.bytes = bytes
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("bytes", &bytes)
    }
}

/// The number of the new arena; its descriptor comes with the first byte of the frame.
public struct ArenaReply: WireMessage {
    /// Names the arena in later requests of this connection.
    public var arena: UInt32 = 0
    /// Its size, at least what was asked for.
    public var bytes: UInt64 = 0

    public init() {}

    public init(arena: UInt32, bytes: UInt64) {
        (self.arena, self.bytes) = (arena, bytes)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("arena", &arena)
        try coder.field("bytes", &bytes)
    }
}

/// Ends a lease before its time.
public struct ReleaseRequest: WireRequest {
    public typealias Reply = EmptyReply
    public static let opcode = Opcode.release

    public var lease: UInt64 = 0

    public init() {}

    public init(lease: UInt64) {
        self.lease = lease
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("lease", &lease)
    }
}

/// Asks how the daemon is.
public struct StatusRequest: WireRequest {
    public typealias Reply = JSONReply
    public static let opcode = Opcode.status

    public init() {}

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {}
}

/// Asks where pages are and why.
public struct ExplainRequest: WireRequest {
    public typealias Reply = JSONReply
    public static let opcode = Opcode.explain
    /// Pages that one answer tells of.
    public static let most = 1024

    /// The session, or ``Wire/none`` for keys of the tenant.
    public var session: UInt32 = 0
    /// Without keys: the index of the session's page to begin with.
    public var first: UInt32 = 0
    /// At most ``most``; none: the session's pages.
    public var keys: [PageKey] = []

    public init() {}

    public init(session: UInt32, first: UInt32 = 0, keys: [PageKey] = []) {
        (self.session, self.first, self.keys) = (session, first, keys)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("first", &first)
        try coder.list("keys", &keys)
    }
}

/// An answer in JSON, for people and dashboards.
public struct JSONReply: WireMessage {
    public var json = ""

    public init() {}

    public init(json: String) {
        self.json = json
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("json", &json)
    }
}

/// Makes pages durable: encodes what waits, then writes to disk and syncs.
public struct FlushRequest: WireRequest {
    public typealias Reply = FlushReply
    public static let opcode = Opcode.flush

    /// The session, or ``Wire/none`` for the whole tenant.
    public var session: UInt32 = 0

    public init() {}

    public init(session: UInt32) {
        self.session = session
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
    }
}

/// What is durable now.
public struct FlushReply: WireMessage {
    /// Pages that were written for this.
    public var pages: UInt64 = 0
    /// Bytes that were written for this.
    public var bytes: UInt64 = 0

    public init() {}

    public init(pages: UInt64, bytes: UInt64) {
        (self.pages, self.bytes) = (pages, bytes)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("pages", &pages)
        try coder.field("bytes", &bytes)
    }
}

/// Has the daemon take no more sessions and pages, or take them again; for administrators.
public struct DrainRequest: WireRequest {
    public typealias Reply = DrainReply
    public static let opcode = Opcode.drain

    /// 1 to begin, 0 to end.
    public var begin: UInt8 = 0

    public init() {}

    public init(begin: Bool) { self.begin = begin ? 1 : 0 }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("begin", &begin)
        guard begin <= 1 else { throw WireError(.invalidField, field: "begin", "\(begin) is neither 0 nor 1") }
    }
}

/// What a drain has before it.
public struct DrainReply: WireMessage {
    /// Pages that may be coded and are not.
    public var waiting: UInt64 = 0
    /// Pages that only RAM has.
    public var unwritten: UInt64 = 0

    public init() {}

    public init(waiting: UInt64, unwritten: UInt64) {
        (self.waiting, self.unwritten) = (waiting, unwritten)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("waiting", &waiting)
        try coder.field("unwritten", &unwritten)
    }
}

/// Reads every page of all tenants and checks it; for administrators. The reply comes in parts as the work goes on.
public struct VerifyRequest: WireRequest {
    public typealias Reply = VerifyReply
    public static let opcode = Opcode.verify

    public init() {}

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {}
}

/// How far a verification is; the last part says what it found.
public struct VerifyReply: WireMessage {
    /// Copies of pages looked at.
    public var checked: UInt64 = 0
    /// Copies there are.
    public var total: UInt64 = 0
    /// Bytes read.
    public var bytes: UInt64 = 0
    /// Copies that were bad and have been taken out.
    public var corrupt: UInt64 = 0
    /// Copies that the device failed to deliver.
    public var unreadable: UInt64 = 0

    public init() {}

    public init(checked: UInt64, total: UInt64, bytes: UInt64, corrupt: UInt64, unreadable: UInt64) {
        self.checked = checked
        self.total = total
        self.bytes = bytes
        self.corrupt = corrupt
        self.unreadable = unreadable
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("checked", &checked)
        try coder.field("total", &total)
        try coder.field("bytes", &bytes)
        try coder.field("corrupt", &corrupt)
        try coder.field("unreadable", &unreadable)
    }
}

/// Measures the way there and back.
public struct PingRequest: WireRequest {
    public typealias Reply = PingReply
    public static let opcode = Opcode.ping

    public var payload: ArraySlice<UInt8> = []

    public init() {}

    public init(payload: ArraySlice<UInt8> = []) {
        self.payload = payload
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.payload("payload", &payload)
    }
}

/// The bytes of the request.
public struct PingReply: WireMessage {
    /// The same bytes.
    public var payload: ArraySlice<UInt8> = []

    public init() {}

    public init(payload: ArraySlice<UInt8>) {
        self.payload = payload
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.payload("payload", &payload)
    }
}
