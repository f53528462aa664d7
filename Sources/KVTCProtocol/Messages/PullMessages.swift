// What a message and its fields mean stands in WireProtocol.md; comments here say what their names do not.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

/// One page to get back.
public struct PullEntry: WireItem {
    static let typeName = "entry"
    static let byteCount = 48

    /// Its name.
    public var key = PageKey.zero
    /// Where in the arena its bytes go; ignored inline.
    public var offset: UInt64 = 0
    /// How many bytes there is room for.
    public var capacity: UInt64 = 0

    public init() {}

    public init(key: PageKey, offset: UInt64, capacity: UInt64) {
        (self.key, self.offset, self.capacity) = (key, offset, capacity)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("entries.key", &key)
        try coder.field("entries.offset", &offset)
        try coder.field("entries.capacity", &capacity)
    }
}

/// Gets pages back, whole or by layers. The reply is a stream of ``PullPart`` and then a ``PullReply``.
public struct PullRequest: WireRequest {
    public typealias Reply = PullReply
    public static let opcode = Opcode.pull

    public var session: UInt32 = 0
    /// The lease that keeps the pages, or 0.
    public var lease: UInt64 = 0
    /// The arena to write to, or ``Wire/none`` for inline bytes.
    public var arena: UInt32 = 0
    public var layerBegin: UInt16 = 0
    /// The layer after the last one; 0 for all.
    public var layerEnd: UInt16 = 0
    /// Layers of one part; 0 for all at once.
    public var layerStep: UInt16 = 0
    public var entries: [PullEntry] = []

    public init() {}

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

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("session", &session)
        try coder.field("lease", &lease)
        try coder.field("arena", &arena)
        try coder.field("layerBegin", &layerBegin)
        try coder.field("layerEnd", &layerEnd)
        try coder.field("layerStep", &layerStep)
        try coder.list("entries", &entries)
    }
}

/// Some layers of one page. Its frame carries the status bit ``Wire/more``.
public struct PullPart: WireMessage {
    /// The index of the entry in the request.
    public var entry: UInt32 = 0
    public var layerBegin: UInt16 = 0
    /// The layer after the last one.
    public var layerEnd: UInt16 = 0
    /// What became of it.
    public var outcome = PullOutcome.miss
    /// Where its bytes start in the arena; inline, counted from the first byte of the entry.
    public var offset: UInt64 = 0
    /// How many bytes there are.
    public var length: UInt64 = 0
    /// The bytes themselves when there is no arena.
    public var inline: ArraySlice<UInt8> = []

    public init() {}

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

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("entry", &entry)
        try coder.field("layerBegin", &layerBegin)
        try coder.field("layerEnd", &layerEnd)
        try coder.field("outcome", &outcome)
        try coder.field("offset", &offset)
        try coder.field("length", &length)
        try coder.payload("inline", &inline)
    }

    /// The body up to its inline bytes, of which `count` follow from elsewhere.
    public func head(inlineCount count: Int) -> [UInt8] {
        var part = self
        part.inline = []
        var fields = part.written.fields
        fields.removeLast(MemoryLayout<UInt32>.size)
        withUnsafeBytes(of: UInt32(count).littleEndian) { fields.append(contentsOf: $0) }
        return fields
    }
}

/// The end of a pull: how many entries ended how.
public struct PullReply: WireMessage {
    /// Entries that are there.
    public var hits: UInt32 = 0
    /// Entries that are not.
    public var misses: UInt32 = 0
    /// Entries whose stored bytes failed their checksum.
    public var corrupt: UInt32 = 0
    /// Entries without room or time.
    public var other: UInt32 = 0

    public init() {}

    public init(hits: UInt32, misses: UInt32, corrupt: UInt32, other: UInt32) {
        (self.hits, self.misses, self.corrupt, self.other) = (hits, misses, corrupt, other)
    }

    public mutating func fields(_ coder: inout FieldCoder) throws(WireError) {
        try coder.field("hits", &hits)
        try coder.field("misses", &misses)
        try coder.field("corrupt", &corrupt)
        try coder.field("other", &other)
    }
}
