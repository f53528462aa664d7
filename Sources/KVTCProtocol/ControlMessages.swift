/// An answer that says only that it is done.
public struct EmptyReply: WireMessage {
    /// The answer.
    public init() {
    }

    /// Appends nothing.
    public func encode(to writer: inout ByteWriter) {
    }

    /// Reads nothing.
    public init(from reader: inout ByteReader) throws(WireError) {
    }
}

/// Asks for shared memory, given with the reply as a file descriptor.
public struct ArenaRequest: WireRequest {
    /// What is answered.
    public typealias Reply = ArenaReply
    /// The number of the request.
    public static let opcode = Opcode.arena

    /// How many bytes.
    public var bytes: UInt64

    /// A request for memory.
    public init(bytes: UInt64) {
        self.bytes = bytes
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(bytes)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        bytes = try reader.readUInt64("bytes")
    }
}

/// The number of the new arena; its descriptor comes with the first byte of the frame.
public struct ArenaReply: WireMessage {
    /// Names the arena in later requests of this connection.
    public var arena: UInt32
    /// Its size, at least what was asked for.
    public var bytes: UInt64

    /// An answer with the number.
    public init(arena: UInt32, bytes: UInt64) {
        self.arena = arena
        self.bytes = bytes
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(arena)
        writer.write(bytes)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        arena = try reader.readUInt32("arena")
        bytes = try reader.readUInt64("bytes")
    }
}

/// Ends a lease before its time.
public struct ReleaseRequest: WireRequest {
    /// What is answered.
    public typealias Reply = EmptyReply
    /// The number of the request.
    public static let opcode = Opcode.release

    /// The lease.
    public var lease: UInt64

    /// A request about the lease.
    public init(lease: UInt64) {
        self.lease = lease
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(lease)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        lease = try reader.readUInt64("lease")
    }
}

/// Brings pages from disk to RAM before they are pulled.
public struct PrefetchRequest: WireRequest {
    /// What is answered.
    public typealias Reply = PrefetchReply
    /// The number of the request.
    public static let opcode = Opcode.prefetch

    /// The session.
    public var session: UInt32
    /// The pages.
    public var keys: [PageKey]

    /// A request about the given keys.
    public init(session: UInt32, keys: [PageKey]) {
        self.session = session
        self.keys = keys
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(list: keys) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        keys = try reader.readKeys("keys")
    }
}

/// How much there was to bring.
public struct PrefetchReply: WireMessage {
    /// Pages that were on disk only.
    public var queued: UInt32

    /// An answer with the number.
    public init(queued: UInt32) {
        self.queued = queued
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(queued)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        queued = try reader.readUInt32("queued")
    }
}

/// Changes pin and time to live of pages.
public struct TouchRequest: WireRequest {
    /// What is answered.
    public typealias Reply = TouchReply
    /// The number of the request.
    public static let opcode = Opcode.touch

    /// The session.
    public var session: UInt32
    /// What happens to the pin.
    public var pin: PinAction
    /// Seconds to live from now on, 0 for no limit, ``Wire/none`` for no change.
    public var ttlSeconds: UInt32
    /// The pages.
    public var keys: [PageKey]

    /// A request about the given keys.
    public init(session: UInt32, pin: PinAction = .keep, ttlSeconds: UInt32 = Wire.none, keys: [PageKey]) {
        self.session = session
        self.pin = pin
        self.ttlSeconds = ttlSeconds
        self.keys = keys
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(pin.rawValue)
        writer.write(ttlSeconds)
        writer.write(list: keys) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        pin = try reader.readCase("pin")
        ttlSeconds = try reader.readUInt32("ttlSeconds")
        keys = try reader.readKeys("keys")
    }
}

/// How many pages were there.
public struct TouchReply: WireMessage {
    /// Pages that were there.
    public var found: UInt32

    /// An answer with the number.
    public init(found: UInt32) {
        self.found = found
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(found)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        found = try reader.readUInt32("found")
    }
}

/// Forgets pages, used by sessions or not. Without keys: those of the session that no other one uses, or all of the tenant.
public struct DropRequest: WireRequest {
    /// What is answered.
    public typealias Reply = DropReply
    /// The number of the request.
    public static let opcode = Opcode.drop

    /// The session, or ``Wire/none`` for the whole tenant.
    public var session: UInt32
    /// The pages; none for all.
    public var keys: [PageKey]

    /// A request about the given keys.
    public init(session: UInt32, keys: [PageKey]) {
        self.session = session
        self.keys = keys
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(list: keys) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        keys = try reader.readKeys("keys")
    }
}

/// How many pages were forgotten.
public struct DropReply: WireMessage {
    /// Pages that were there.
    public var dropped: UInt32

    /// An answer with the number.
    public init(dropped: UInt32) {
        self.dropped = dropped
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(dropped)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        dropped = try reader.readUInt32("dropped")
    }
}

/// Asks how the daemon is.
public struct StatusRequest: WireRequest {
    /// What is answered.
    public typealias Reply = JSONReply
    /// The number of the request.
    public static let opcode = Opcode.status

    /// The question.
    public init() {
    }

    /// Appends nothing.
    public func encode(to writer: inout ByteWriter) {
    }

    /// Reads nothing.
    public init(from reader: inout ByteReader) throws(WireError) {
    }
}

/// An answer in JSON, for people and dashboards.
public struct JSONReply: WireMessage {
    /// The document.
    public var json: String

    /// An answer with the text.
    public init(json: String) {
        self.json = json
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(json)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        json = try reader.readString("json")
    }
}

/// Makes pages durable: encodes what waits, then writes to disk and syncs.
public struct FlushRequest: WireRequest {
    /// What is answered.
    public typealias Reply = FlushReply
    /// The number of the request.
    public static let opcode = Opcode.flush

    /// The session, or ``Wire/none`` for the whole tenant.
    public var session: UInt32

    /// A request about one session or all.
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

/// What is durable now.
public struct FlushReply: WireMessage {
    /// Pages that were written for this.
    public var pages: UInt64
    /// Bytes that were written for this.
    public var bytes: UInt64

    /// An answer with the amounts.
    public init(pages: UInt64, bytes: UInt64) {
        self.pages = pages
        self.bytes = bytes
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(pages)
        writer.write(bytes)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        pages = try reader.readUInt64("pages")
        bytes = try reader.readUInt64("bytes")
    }
}

/// Reads every page of all tenants and checks it; for administrators. The reply comes in parts as the work goes on.
public struct VerifyRequest: WireRequest {
    /// What is answered.
    public typealias Reply = VerifyReply
    /// The number of the request.
    public static let opcode = Opcode.verify

    /// The request.
    public init() {
    }

    /// Appends nothing.
    public func encode(to writer: inout ByteWriter) {
    }

    /// Reads nothing.
    public init(from reader: inout ByteReader) throws(WireError) {
    }
}

/// How far a verification is; the last part says what it found.
public struct VerifyReply: WireMessage {
    /// Copies of pages looked at.
    public var checked: UInt64
    /// Copies there are.
    public var total: UInt64
    /// Bytes read.
    public var bytes: UInt64
    /// Copies that were bad and have been taken out.
    public var corrupt: UInt64
    /// Copies that the device failed to deliver.
    public var unreadable: UInt64

    /// An answer with the amounts.
    public init(checked: UInt64, total: UInt64, bytes: UInt64, corrupt: UInt64, unreadable: UInt64) {
        self.checked = checked
        self.total = total
        self.bytes = bytes
        self.corrupt = corrupt
        self.unreadable = unreadable
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        for value in [checked, total, bytes, corrupt, unreadable] { writer.write(value) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        checked = try reader.readUInt64("checked")
        total = try reader.readUInt64("total")
        bytes = try reader.readUInt64("bytes")
        corrupt = try reader.readUInt64("corrupt")
        unreadable = try reader.readUInt64("unreadable")
    }
}

/// Measures the way there and back.
public struct PingRequest: WireRequest {
    /// What is answered.
    public typealias Reply = PingReply
    /// The number of the request.
    public static let opcode = Opcode.ping

    /// Any bytes.
    public var payload: ArraySlice<UInt8>

    /// A request with bytes to send back.
    public init(payload: ArraySlice<UInt8> = []) {
        self.payload = payload
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(payload)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        payload = try reader.readBytes("payload")
    }
}

/// The bytes of the request.
public struct PingReply: WireMessage {
    /// The same bytes.
    public var payload: ArraySlice<UInt8>

    /// An answer with the bytes.
    public init(payload: ArraySlice<UInt8>) {
        self.payload = payload
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(payload)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        payload = try reader.readBytes("payload")
    }
}
