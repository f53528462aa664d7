import DequeModule
import struct KVTCStore.StoreKey

/// The order in which pages came to wait for a reason to be coded, for each tenant. What has become of a page since is the
/// ledger's to say: places that no page has any more are passed over.
struct WaitingPages {
    struct Entry {
        var key: StoreKey
        var place: UInt64
    }

    private(set) var places: UInt64 = 0
    private var byTenant: [UInt32: Deque<Entry>] = [:]
    /// Those that are coded when there is nothing else to do.
    private var idle: Deque<Entry> = []
    private(set) var count = 0
    private var mostBeforeSweep = 1024

    /// The next place, at the end.
    mutating func append(_ key: StoreKey, isIdle: Bool) -> UInt64 {
        places += 1
        let entry = Entry(key: key, place: places)
        byTenant[key.tenant, default: []].append(entry)
        if isIdle { idle.append(entry) }
        count += 1
        return places
    }

    /// Takes out the first one, of a tenant or of all.
    mutating func popFirst(of tenant: UInt32?) -> Entry? {
        let tenant = tenant ?? byTenant.min { ($0.value.first?.place ?? .max) < ($1.value.first?.place ?? .max) }?.key
        guard let tenant, let entry = byTenant[tenant]?.popFirst() else { return nil }
        if byTenant[tenant]?.isEmpty == true { byTenant[tenant] = nil }
        count -= 1
        return entry
    }

    /// Takes out the first one that may go when there is nothing else to do.
    mutating func popFirstIdle() -> Entry? { idle.popFirst() }

    /// Whether so many have come since the last ``sweep(_:)`` that places which no page has any more may be most of them.
    var isSweepDue: Bool { count >= mostBeforeSweep }

    /// Keeps the places that a page has.
    mutating func sweep(_ isThere: (Entry) -> Bool) {
        byTenant = byTenant.mapValues { $0.filter(isThere) }.filter { !$0.value.isEmpty }
        idle = idle.filter(isThere)
        count = byTenant.values.reduce(0) { $0 + $1.count }
        mostBeforeSweep = max(1024, 2 * count)
    }
}
