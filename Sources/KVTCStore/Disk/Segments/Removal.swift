/// A page, or everything of a tenant, that earlier records of the log no longer tell of.
///
/// A removal that may have been lost is written again, behind records that it must not touch: it then says up to where it
/// counts.
struct Removal: Hashable, Sendable {
    /// The page; of a removal of everything only the tenant counts.
    let key: StoreKey
    var isWholeTenant = false
    /// Records from here on are not removed; nil: none but those behind the removal's own record.
    var before: LogPosition?
    /// Records of earlier segments are not removed.
    var since: UInt64 = 0

    init(_ key: StoreKey) { self.key = key }

    /// Of all pages of a tenant.
    init(tenant: UInt32) {
        key = StoreKey(tenant: tenant, words: .zero)
        isWholeTenant = true
    }

    /// What a record that lies there removes; nil when it is of another kind.
    init?(_ header: RecordHeader, at position: LogPosition) {
        guard header.kind == .tombstone || header.kind == .tenantTombstone else { return nil }
        key = header.key
        isWholeTenant = header.kind == .tenantTombstone
        let (segment, offset) = (header.attributes.rawBytes, header.attributes.expires)
        before = position
        if segment > 0, let offset { before = LogPosition(segment: segment, offset: Int(clamping: offset)) }
    }

    /// As it is written.
    var header: RecordHeader {
        let bound = before.map { PageAttributes(expires: UInt64($0.offset), rawBytes: $0.segment) }
        return RecordHeader(
            kind: isWholeTenant ? .tenantTombstone : .tombstone, key: key, attributes: bound ?? PageAttributes(),
            payloadBytes: 0, payloadHash: 0)
    }

    func covers(_ location: DiskLocation) -> Bool {
        let position = LogPosition(segment: location.segment.id, offset: location.offset)
        return position.segment >= since && before.map { position < $0 } ?? true
    }
}
