/// A promise that some pages stay fetchable.
struct Lease {
    let deadline: UInt64
    let entries: [StoreKey: PageEntry]
}

/// All pages, their order of use, leases and counters. Lives behind the store's index lock and does no I/O.
struct StoreIndex {
    var pages = PageTable()
    /// Entries that are kept although they may rest, so that pages in frequent use are not put down and taken up all the time.
    let awakeLimit: Int
    private(set) var tenants: [UInt32: TenantPages] = [:]
    /// Segments whose sync failed, with the offset up to which they are known to be durable.
    var unsafeSegments: [UInt64: Int] = [:]
    /// Removals of which the log has yet to tell.
    var tombstones: [Removal] = []
    /// Whether some of the log could not be read: it may have pages that are not known here.
    var mayMissRecords = false
    var counters = StoreStatistics()
    var expiry = ExpiryHeap()
    private var leases: [UInt64: Lease] = [:]
    private var tick: UInt64 = 0
    /// The number of the last record written to a RAM directory.
    private var sequence: UInt64 = 0

    init(awakeLimit: Int) { self.awakeLimit = awakeLimit }

    /// Changes an entry that is in the index, keeping totals and lists right.
    mutating func mutate(_ entry: PageEntry, _ change: (PageEntry) -> Void) {
        let (extent, attributes) = (entry.ram, entry.attributes)
        account(entry, -1)
        change(entry)
        account(entry, 1)
        relink(entry)
        if entry.ram !== extent || entry.attributes != attributes { publish(entry) }
        if entry.ram !== extent { extent?.retract() }
        restIfPossible(entry)
    }

    /// Lets the page in RAM outlive the process, as it is now.
    private mutating func publish(_ entry: PageEntry) {
        guard let extent = entry.ram else { return }
        sequence += 1
        extent.publish(
            RAMRecord(
                key: entry.key, attributes: entry.attributes, length: entry.length, hash: entry.hash!,
                sequence: sequence, lastUse: entry.lastUse))
    }

    mutating func insert(_ entry: PageEntry) {
        add(entry)
        publish(entry)
    }

    private mutating func add(_ entry: PageEntry) {
        precondition(pages.find(entry.key) == nil, "the key is in the index already")
        pages.restSome(beyond: awakeLimit, looking: 2)
        pages.insert(entry)
        account(entry, 1)
        touch(entry)
        relink(entry)
        if let expires = entry.attributes.expires { expiry.push(expires, entry.number) }
    }

    /// Takes the entry out. Its bytes stay alive for whoever is reading them.
    mutating func remove(_ entry: PageEntry) {
        precondition(pages.contains(entry), "the entry is not in the index")
        account(entry, -1)
        unlink(entry)
        pages.remove(entry)
        entry.ram?.retract()
        entry.ram = nil
        entry.disk = nil
        if entry.logged || mayMissRecords { tombstones.append(Removal(entry.key)) }
    }

    /// Marks the entry as just used.
    mutating func touch(_ entry: PageEntry) {
        entry.lastUse = nextTick()
        entry.ram?.noteUse(entry.lastUse)
        if let list = entry.list { moveToEnd(entry.number, of: list, tenant: entry.key.tenant) }
    }

    mutating func moveToEnd(_ number: UInt32, of list: Int, tenant: UInt32) {
        pages.unlink(number, from: &tenants[tenant]!.lists[list])
        pages.append(number, to: &tenants[tenant]!.lists[list])
    }

    private mutating func unlink(_ entry: PageEntry) {
        if let list = entry.list { pages.unlink(entry.number, from: &tenants[entry.key.tenant]!.lists[list]) }
        entry.list = nil
    }

    mutating func nextTick() -> UInt64 {
        tick += 1
        return tick
    }

    /// Removes pages that have expired and do not rest on disk, at most `limit`; returns how many.
    mutating func purgeExpired(at now: UInt64, limit: Int = .max) -> Int {
        var purged = 0
        var leased: [(UInt64, UInt32)] = []
        while purged < limit, let top = expiry.first, top.expires <= now {
            _ = expiry.pop()
            let row = pages[top.number]
            // Those that rest on disk are found by looking there.
            if row.state == .free || row.state == .onDisk { continue }
            guard (pages.awake(top.number)?.attributes ?? row.attributes).expires == top.expires else { continue }
            let entry = entry(top.number)
            if entry.isExpired(at: now) {
                remove(entry)
                counters.expired += 1
                purged += 1
            } else {
                leased.append(top)
            }
        }
        for (expires, number) in leased { expiry.push(expires, number) }
        return purged
    }

    /// Enters the pages that an earlier process left in RAM; of two records of a key the later one counts.
    mutating func inherit(_ found: [(RAMRecord, RAMExtent)]) {
        var latest: [StoreKey: (RAMRecord, RAMExtent)] = [:]
        for (record, extent) in found.sorted(by: { $0.0.sequence < $1.0.sequence }) {
            latest.updateValue((record, extent), forKey: record.key)?.1.retract()
            sequence = record.sequence
        }
        for (record, extent) in latest.values.sorted(by: { $0.0.lastUse < $1.0.lastUse }) {
            let entry = PageEntry(
                key: record.key, attributes: record.attributes, length: record.length, hash: record.hash)
            entry.ram = extent
            add(entry)
        }
        counters.recoveredFromRAM = UInt64(latest.count)
    }

    private mutating func relink(_ entry: PageEntry) {
        let wanted: Int? =
            entry.ram == nil
            ? nil : entry.isProtected ? TenantPages.protectedList : Int(entry.attributes.priority)
        guard wanted != entry.list else { return }
        unlink(entry)
        entry.list = wanted
        if let wanted { pages.append(entry.number, to: &tenants[entry.key.tenant]!.lists[wanted]) }
    }

    private mutating func account(_ entry: PageEntry, _ sign: Int) {
        tenants[entry.key.tenant, default: TenantPages()].usage.account(entry, sign)
    }

    /// Counts a page that had to leave RAM or the store.
    mutating func count(_ tenant: UInt32, _ change: (inout TenantUsage) -> Void) {
        change(&tenants[tenant, default: TenantPages()].usage)
    }
}

// MARK: - Leases

extension StoreIndex {
    mutating func lease(_ keys: [StoreKey], until deadline: UInt64, now: UInt64) -> UInt64 {
        var entries: [StoreKey: PageEntry] = [:]
        for key in keys {
            if let entry = live(key, at: now) { entries[key] = entry }
        }
        var id: UInt64 = 0
        // Random, so that a lease of somebody else cannot be guessed; positive as a signed number too.
        while id == 0 || leases[id] != nil { id = UInt64.random(in: 1...UInt64(Int64.max)) }
        leases[id] = Lease(deadline: deadline, entries: entries)
        for entry in entries.values { mutate(entry) { $0.leases += 1 } }
        return id
    }

    mutating func release(_ id: UInt64) -> Bool {
        guard let lease = leases.removeValue(forKey: id) else { return false }
        // In the order of use, which is the order in which they go back to the list of their priority.
        for entry in lease.entries.values.sorted(by: { $0.lastUse < $1.lastUse }) {
            if pages.contains(entry) { mutate(entry) { $0.leases -= 1 } } else { entry.leases -= 1 }
        }
        return true
    }

    mutating func releaseOverdue(at milliseconds: UInt64) {
        for (id, lease) in leases where lease.deadline <= milliseconds { _ = release(id) }
    }

    func isLeased(_ id: UInt64, _ key: StoreKey) -> Bool {
        guard let entry = leases[id]?.entries[key] else { return false }
        return pages.contains(entry)
    }
}
