/// One page to get back.
public struct PullEntry: WireMessage {
    static let byteCount = 48

    /// Its name.
    public var key: PageKey
    /// Where in the arena its bytes go; ignored inline.
    public var offset: UInt64
    /// How many bytes there is room for.
    public var capacity: UInt64

    /// A page that goes to the given place of the arena.
    public init(key: PageKey, offset: UInt64, capacity: UInt64) {
        self.key = key
        self.offset = offset
        self.capacity = capacity
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        key.encode(to: &writer)
        writer.write(offset)
        writer.write(capacity)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        key = try PageKey(from: &reader, field: "entries.key")
        offset = try reader.readUInt64("entries.offset")
        capacity = try reader.readUInt64("entries.capacity")
    }
}

/// Gets pages back, whole or by layers. The reply is a stream of ``PullPart`` and then a ``PullReply``.
public struct PullRequest: WireRequest {
    /// What is answered.
    public typealias Reply = PullReply
    /// The number of the request.
    public static let opcode = Opcode.pull

    /// The session.
    public var session: UInt32
    /// The lease that keeps the pages, or 0.
    public var lease: UInt64
    /// The arena to write to, or ``Wire/none`` for inline bytes.
    public var arena: UInt32
    /// The first layer.
    public var layerBegin: UInt16
    /// The layer after the last one; 0 for all.
    public var layerEnd: UInt16
    /// Layers of one part; 0 for all at once.
    public var layerStep: UInt16
    /// The pages.
    public var entries: [PullEntry]

    /// A request for layers of pages.
    public init(
        session: UInt32, lease: UInt64 = 0, arena: UInt32, layerBegin: UInt16 = 0, layerEnd: UInt16 = 0,
        layerStep: UInt16 = 0, entries: [PullEntry]
    ) {
        self.session = session
        self.lease = lease
        self.arena = arena
        self.layerBegin = layerBegin
        self.layerEnd = layerEnd
        self.layerStep = layerStep
        self.entries = entries
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(session)
        writer.write(lease)
        writer.write(arena)
        writer.write(layerBegin)
        writer.write(layerEnd)
        writer.write(layerStep)
        writer.write(list: entries) { $0.encode(to: &$1) }
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        session = try reader.readUInt32("session")
        lease = try reader.readUInt64("lease")
        arena = try reader.readUInt32("arena")
        layerBegin = try reader.readUInt16("layerBegin")
        layerEnd = try reader.readUInt16("layerEnd")
        layerStep = try reader.readUInt16("layerStep")
        entries = try reader.readList("entries", itemBytes: PullEntry.byteCount) { r, _ throws(WireError) in
            try PullEntry(from: &r)
        }
    }
}

/// Some layers of one page. Its frame carries the status bit ``Wire/more``.
public struct PullPart: WireMessage {
    /// The index of the entry in the request.
    public var entry: UInt32
    /// The first layer.
    public var layerBegin: UInt16
    /// The layer after the last one.
    public var layerEnd: UInt16
    /// What became of it.
    public var outcome: PullOutcome
    /// Where its bytes start in the arena; inline, counted from the first byte of the entry.
    public var offset: UInt64
    /// How many bytes there are.
    public var length: UInt64
    /// The bytes themselves when there is no arena.
    public var inline: ArraySlice<UInt8>

    /// A part of the reply.
    public init(
        entry: UInt32, layerBegin: UInt16, layerEnd: UInt16, outcome: PullOutcome, offset: UInt64, length: UInt64,
        inline: ArraySlice<UInt8> = []
    ) {
        self.entry = entry
        self.layerBegin = layerBegin
        self.layerEnd = layerEnd
        self.outcome = outcome
        self.offset = offset
        self.length = length
        self.inline = inline
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(entry)
        writer.write(layerBegin)
        writer.write(layerEnd)
        writer.write(outcome.rawValue)
        writer.write(offset)
        writer.write(length)
        writer.write(payload: inline)
    }

    /// The body up to its inline bytes, of which `count` follow from elsewhere.
    public func fields(inlineCount count: Int) -> [UInt8] {
        var part = self
        part.inline = []
        var writer = ByteWriter()
        part.encode(to: &writer)
        var fields = writer.fields
        fields.removeLast(MemoryLayout<UInt32>.size)
        withUnsafeBytes(of: UInt32(count).littleEndian) { fields.append(contentsOf: $0) }
        return fields
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        entry = try reader.readUInt32("entry")
        layerBegin = try reader.readUInt16("layerBegin")
        layerEnd = try reader.readUInt16("layerEnd")
        outcome = try reader.readCase("outcome")
        offset = try reader.readUInt64("offset")
        length = try reader.readUInt64("length")
        inline = try reader.readBytes("inline")
    }
}

/// The end of a pull: how many entries ended how.
public struct PullReply: WireMessage {
    /// Entries that are there.
    public var hits: UInt32
    /// Entries that are not.
    public var misses: UInt32
    /// Entries whose stored bytes failed their checksum.
    public var corrupt: UInt32
    /// Entries without room or time.
    public var other: UInt32

    /// The end of a reply.
    public init(hits: UInt32, misses: UInt32, corrupt: UInt32, other: UInt32) {
        self.hits = hits
        self.misses = misses
        self.corrupt = corrupt
        self.other = other
    }

    /// Appends the fields in wire order.
    public func encode(to writer: inout ByteWriter) {
        writer.write(hits)
        writer.write(misses)
        writer.write(corrupt)
        writer.write(other)
    }

    /// Reads the fields in wire order.
    public init(from reader: inout ByteReader) throws(WireError) {
        hits = try reader.readUInt32("hits")
        misses = try reader.readUInt32("misses")
        corrupt = try reader.readUInt32("corrupt")
        other = try reader.readUInt32("other")
    }
}
