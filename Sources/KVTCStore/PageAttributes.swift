/// What the store knows of a page besides its bytes. It is kept with the page on disk.
public struct PageAttributes: Hashable, Sendable {
    /// 0…255; pages of a lower priority leave RAM first.
    public var priority: UInt8
    /// A pinned page may move to disk but is never dropped to make room.
    public var pinned: Bool
    /// Seconds of the store's time (see ``Store/seconds``) from which on the page is a miss; nil: never. A pinned page does not
    /// expire while it is pinned.
    public var expires: UInt64?
    /// Seconds for which the page lives on after each use: then ``expires`` is put off. 0: it stays as it is.
    public var ttl: UInt32
    /// The position of the page's first token in its stream.
    public var firstPosition: UInt32
    /// The number of tokens in the page.
    public var tokens: UInt32
    /// The size in bytes before coding, for the ratio.
    public var rawBytes: UInt64
    /// Whether the bytes are a coded block, not a raw one.
    public var coded: Bool
    /// Whether the coded block stands in for a raw one that would be kept if it were put again.
    public var near: Bool
    /// Protected by a session that has since closed: encoders without its row set must keep the page raw.
    public var promised: Bool
    /// Whether there is NaN or infinity in the page, so that a finite one put again takes its place.
    public var nonFinite: Bool
    /// Whether the bytes are a coded block of which not every row comes back as it was. Pages that versions before this mark
    /// have coded lack it.
    public var lossy: Bool

    /// Attributes of a page; the defaults are those of an ordinary raw page.
    public init(
        priority: UInt8 = 128, pinned: Bool = false, expires: UInt64? = nil, ttl: UInt32 = 0, firstPosition: UInt32 = 0,
        tokens: UInt32 = 0, rawBytes: UInt64 = 0, coded: Bool = false, near: Bool = false,
        promised: Bool = false, nonFinite: Bool = false, lossy: Bool = false
    ) {
        self.priority = priority
        self.pinned = pinned
        self.expires = expires
        self.ttl = ttl
        self.firstPosition = firstPosition
        self.tokens = tokens
        self.rawBytes = rawBytes
        self.coded = coded
        self.near = near
        self.promised = promised
        self.nonFinite = nonFinite
        self.lossy = lossy
    }
}

extension PageAttributes {
    /// Whether what a user was told to be so for good is the same. An expiry may change with every use.
    func hasSameMarks(as other: PageAttributes) -> Bool {
        (priority, pinned, promised) == (other.priority, other.pinned, other.promised)
    }

    /// Takes over what a record of new attributes says; the rest is said by the page's own record.
    mutating func take(_ record: PageAttributes) {
        (priority, pinned, promised) = (record.priority, record.pinned, record.promised)
        (expires, ttl) = (record.expires, record.ttl)
    }

    /// The booleans as they are stored: bit 0 pinned, bit 1 coded, bit 2 expires, bit 3 near, bit 4 promised, bit 5 not finite,
    /// bit 6 lossy.
    var flags: UInt8 {
        let low: UInt8 = (pinned ? 1 : 0) | (coded ? 2 : 0) | (expires != nil ? 4 : 0) | (near ? 8 : 0)
        return low | (promised ? 16 : 0) | (nonFinite ? 32 : 0) | (lossy ? 64 : 0)
    }

    /// Attributes from their stored form; `expires` and `ttl` count only with their flag.
    init(
        flags: UInt8, priority: UInt8, expires: UInt64, ttl: UInt32, firstPosition: UInt32, tokens: UInt32,
        rawBytes: UInt64
    ) {
        self.init(
            priority: priority, pinned: flags & 1 != 0, expires: flags & 4 != 0 ? expires : nil,
            ttl: flags & 4 != 0 ? ttl : 0,
            firstPosition: firstPosition, tokens: tokens, rawBytes: rawBytes, coded: flags & 2 != 0,
            near: flags & 8 != 0, promised: flags & 16 != 0, nonFinite: flags & 32 != 0, lossy: flags & 64 != 0)
    }
}
