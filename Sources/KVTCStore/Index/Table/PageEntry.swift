/// What the index knows of one page that is in use, or of which more is to be remembered than fits its
/// ``CompactEntry``.
final class PageEntry: @unchecked Sendable {
    // Justified: every mutable field is read and written only under the index lock; references cross locks only to be compared.
    // Four words and not a vector, which would be aligned to 32 bytes.
    private let words: (UInt64, UInt64, UInt64, UInt64)
    private let tenant: UInt32
    private var firstPosition: UInt32 = 0
    private var expires: UInt64 = 0
    private var rawBytes: UInt64 = 0
    private var tokens: UInt32 = 0
    private var ttl: UInt32 = 0
    /// Counts replacements of the bytes, so that a slow writer or reader notices that it is out of date.
    var version: UInt32 = 0
    var length: Int
    var ram: RAMExtent?
    private var segment: Segment?
    private var offset = 0
    /// Position in the order of use.
    var lastUse: UInt64 = 0
    /// ``lastUse`` as it was when the disk record was written; later use makes the page worth carrying over.
    var writtenUse: UInt64 = 0
    private var shadowID: UInt64 = 0
    /// The checksum of the bytes as they were put; it travels with them through every tier. Nil for a page that is on disk
    /// only and has not been read: there it lies in the record.
    var hash: UInt64?
    /// Milliseconds before ``expires`` at which the page ends. Nothing else has room for them: once the entry is compact, or the
    /// process another, it ends with the full second.
    private var early: UInt16 = 0
    private var flags: UInt8 = 0
    private var priority: UInt8 = 0
    /// Whether some record of the key may be in the log, so that a removal needs a tombstone.
    var logged = false
    /// Whether attributes changed since the disk record was written.
    var attributesDirty = false
    /// Whether that is more than the expiry.
    var marksDirty = false
    private var listNumber: Int16 = -1
    var leases: Int32 = 0
    var holds: Int32 = 0
    /// Its number in the index's table.
    var number: UInt32 = 0

    init(key: StoreKey, attributes: PageAttributes, length: Int, hash: UInt64?) {
        words = (key.words[0], key.words[1], key.words[2], key.words[3])
        tenant = key.tenant
        self.length = length
        self.hash = hash
        self.attributes = attributes
    }

    var key: StoreKey { StoreKey(tenant: tenant, words: SIMD4(words.0, words.1, words.2, words.3)) }

    var attributes: PageAttributes {
        get {
            PageAttributes(
                flags: flags, priority: priority, expires: expires, ttl: ttl, firstPosition: firstPosition,
                tokens: tokens, rawBytes: rawBytes)
        }
        set {
            if (newValue.expires, newValue.ttl) != (expires, ttl) { early = 0 }
            (flags, priority, expires) = (newValue.flags, newValue.priority, newValue.expires ?? 0)
            ttl = newValue.ttl
            (firstPosition, tokens, rawBytes) = (newValue.firstPosition, newValue.tokens, newValue.rawBytes)
        }
    }

    /// Notes what the log says of the page.
    func noteLogged(_ logged: PageAttributes) {
        attributesDirty = attributes != logged
        marksDirty = !attributes.hasSameMarks(as: logged)
    }

    /// Of the present bytes.
    var disk: DiskLocation? {
        get { segment.map { DiskLocation($0, offset, RecordHeader.recordBytes(payload: length)!) } }
        set { (segment, offset) = (newValue?.segment, newValue?.offset ?? 0) }
    }

    /// The segment of the last durable record, when newer bytes exist in RAM only. Their numbers begin at 1.
    var shadow: UInt64? {
        get { shadowID == 0 ? nil : shadowID }
        set { shadowID = newValue ?? 0 }
    }

    /// The list of its tenant that it is linked in.
    var list: Int? {
        get { listNumber < 0 ? nil : Int(listNumber) }
        set { listNumber = Int16(newValue ?? -1) }
    }

    /// Protected pages may change tier but are not dropped to make room.
    var isProtected: Bool { attributes.pinned || leases > 0 || holds > 0 }
    var isDirty: Bool { ram != nil && segment == nil }

    /// A pin comes before an expiry, and so does a lease.
    func isExpired(at now: Moment) -> Bool {
        guard attributes.expires != nil, end <= now.milliseconds else { return false }
        return leases == 0 && !attributes.pinned
    }

    /// Whether a use now puts its expiry off.
    func isRenewed(at now: Moment) -> Bool {
        ttl > 0 && attributes.expires != nil && now.milliseconds &+ UInt64(ttl) * 1000 > end
    }

    /// Has the page end so many seconds after this moment, and after each use.
    func live(_ ttl: UInt32, from now: Moment) {
        (attributes.expires, attributes.ttl) = (now.next &+ UInt64(ttl), ttl)
        early = UInt16(now.next * 1000 - now.milliseconds)
    }

    /// In milliseconds.
    private var end: UInt64 {
        let (milliseconds, overflow) = expires.multipliedReportingOverflow(by: 1000)
        return overflow ? .max : milliseconds - UInt64(early)
    }
}
