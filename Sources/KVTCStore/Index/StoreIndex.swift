/// A promise that some pages stay fetchable.
struct Lease {
    var deadline: UInt64
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
    /// The run of segments that is being replayed, and the use of its last page so far.
    private var replayed: (run: UInt64, use: UInt64) = (0, 0)
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

    /// Enters a page. It counts as used just now or, where one of those `before` it in its conversation is in RAM like it, when the
    /// last of these was used, and leaves RAM just before that one: of a conversation the end goes first.
    mutating func insert(_ entry: PageEntry, after before: ArraySlice<StoreKey> = [], use: UInt64? = nil) {
        add(entry, after: before, use: use)
        publish(entry)
    }

    private mutating func add(_ entry: PageEntry, after before: ArraySlice<StoreKey> = [], use: UInt64? = nil) {
        precondition(pages.find(entry.key) == nil, "the key is in the index already")
        pages.restSome(beyond: awakeLimit, looking: 2)
        let list = wantedList(entry)
        // In a long conversation of which little is left in RAM it is not looked for to the end.
        let neighbour = list.flatMap { self.lastInRAM(before.suffix(1024), $0) }
        pages.insert(entry)
        account(entry, 1)
        if let neighbour, let list {
            entry.lastUse = pages.lastUse(neighbour)
            entry.list = list
            pages.insert(entry.number, before: neighbour, in: &tenants[entry.key.tenant]!.lists[list])
        } else {
            // Those before it may be with their coder, in the list of what is held.
            touch(entry, lastInRAM(before.suffix(64)).map(pages.lastUse) ?? use ?? nextTick())
            relink(entry)
        }
        if let expires = entry.attributes.expires { expiry.push(expires, entry.number) }
    }

    /// Takes the entry out. Its bytes stay alive for readers that have them.
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
    mutating func touch(_ entry: PageEntry, _ use: UInt64) {
        entry.lastUse = use
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

    /// When the next page of the log counts as used: later than the one before it but in a run, which has the pages used last first.
    mutating func nextReplayed(in segment: Segment) -> UInt64 {
        if segment.run != replayed.run {
            // More than the pages that a stop finds in RAM; the order of use on disk has room for a thousand runs.
            if segment.run != 0 { tick += 1 << 26 }
            replayed = (segment.run, tick)
        }
        if segment.run == 0 { return nextTick() }
        replayed.use = max(1, replayed.use - 1)
        return replayed.use
    }

    /// Removes pages that have expired and do not rest on disk, looking at no more than `limit`; returns how many.
    mutating func purgeExpired(at now: UInt64, limit: Int = .max) -> Int {
        var (looked, purged) = (0, 0)
        var leased: [(UInt64, UInt32)] = []
        while looked < limit, let top = expiry.first, top.expires <= now {
            looked += 1
            _ = expiry.pop()
            let row = pages[top.number]
            // Those that rest on disk are found by looking there; one that is pinned comes back when it no longer is.
            if row.state == .free || row.state == .onDisk { continue }
            let awake = pages.awake(top.number)
            guard let expires = awake.map(\.attributes.expires) ?? row.expiry,
                !(awake?.attributes.pinned ?? row.isPinned)
            else { continue }
            if expires > now {
                // Used since, or another page.
                expiry.push(expires, top.number)
                continue
            }
            let entry = entry(top.number)
            if entry.isExpired(at: now) {
                remove(entry)
                counters.expired += 1
                purged += 1
            } else {
                leased.append((expires, top.number))
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
        var (use, before) = (UInt64(0), UInt64(0))
        let order = latest.values.sorted { a, b in
            (a.0.lastUse, .max - a.0.attributes.firstPosition) < (b.0.lastUse, .max - b.0.attributes.firstPosition)
        }
        for (record, extent) in order {
            // Pages that were used together still were.
            if record.lastUse != before || use == 0 { use = nextTick() }
            before = record.lastUse
            let entry = PageEntry(
                key: record.key, attributes: record.attributes, length: record.length, hash: record.hash)
            entry.ram = extent
            add(entry, use: use)
        }
        counters.recoveredFromRAM = UInt64(latest.count)
    }

    /// Lets a page that has come into RAM leave it just before the last of the pages `before` it that are there too.
    mutating func place(_ entry: PageEntry, after before: ArraySlice<StoreKey>) {
        // Who asks for a page twice has it before itself.
        guard let list = entry.list, let neighbour = lastInRAM(before.suffix(64), list), neighbour != entry.number
        else { return }
        pages.unlink(entry.number, from: &tenants[entry.key.tenant]!.lists[list])
        pages.insert(entry.number, before: neighbour, in: &tenants[entry.key.tenant]!.lists[list])
    }

    private func wantedList(_ entry: PageEntry) -> Int? {
        entry.ram == nil ? nil : entry.isProtected ? TenantPages.protectedList : Int(entry.attributes.priority)
    }

    /// The number of the last of the pages that is linked in that list, or in any.
    private func lastInRAM(_ keys: ArraySlice<StoreKey>, _ wanted: Int? = nil) -> UInt32? {
        for key in keys.reversed() {
            guard let number = pages.find(key) else { continue }
            let row = pages[number]
            guard let list = row.state == .inRAM ? row.list : pages.awake(number)?.list else { continue }
            if list == wanted ?? list { return number }
        }
        return nil
    }

    private mutating func relink(_ entry: PageEntry) {
        let wanted = wantedList(entry)
        guard wanted != entry.list else { return }
        unlink(entry)
        entry.list = wanted
        guard let wanted else { return }
        if let follower = follower(of: entry, in: wanted) {
            pages.insert(entry.number, before: follower, in: &tenants[entry.key.tenant]!.lists[wanted])
        } else {
            pages.append(entry.number, to: &tenants[entry.key.tenant]!.lists[wanted])
        }
    }

    /// The page that is to leave RAM right after one that comes into a list, as from its coder; nil where that is the one used last
    /// of all. It was used later, or in the same use and lies nearer to the beginning of its conversation.
    private func follower(of entry: PageEntry, in list: Int) -> UInt32? {
        var follower: UInt32?
        var number = tenants[entry.key.tenant]?.lists[list].newest ?? PageRow.none
        // Where much was used since, some of the order is worth less than the time to find it.
        for _ in 0..<1024 {
            guard number != PageRow.none else { break }
            let (use, position) = (pages.lastUse(number), pages.firstPosition(number))
            guard use > entry.lastUse || use == entry.lastUse && position < entry.attributes.firstPosition else {
                break
            }
            follower = number
            number = pages[number].previous
        }
        return follower
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
        // Random, so that another client's lease cannot be guessed; positive as a signed number too.
        while id == 0 || leases[id] != nil { id = UInt64.random(in: 1...UInt64(Int64.max)) }
        leases[id] = Lease(deadline: deadline, entries: entries)
        for entry in entries.values { mutate(entry) { $0.leases += 1 } }
        return id
    }

    mutating func release(_ id: UInt64) -> Bool {
        guard let lease = leases.removeValue(forKey: id) else { return false }
        // As if they were used now, in the order of use, so that a lease that ran out is not punished; of a conversation the end is
        // the first to go.
        let entries = lease.entries.values.sorted { a, b in
            (a.lastUse, .max - a.attributes.firstPosition) < (b.lastUse, .max - b.attributes.firstPosition)
        }
        for entry in entries {
            guard pages.contains(entry) else {
                entry.leases -= 1
                continue
            }
            touch(entry, nextTick())
            mutate(entry) { $0.leases -= 1 }
        }
        return true
    }

    mutating func releaseOverdue(at milliseconds: UInt64) {
        for (id, lease) in leases where lease.deadline <= milliseconds { _ = release(id) }
    }

    /// Gives a lease another deadline; false when it has ended.
    mutating func extend(_ id: UInt64, until deadline: UInt64) -> Bool {
        leases[id]?.deadline = deadline
        return leases[id] != nil
    }

    func isLeased(_ id: UInt64, _ key: StoreKey) -> Bool {
        guard let entry = leases[id]?.entries[key] else { return false }
        return pages.contains(entry)
    }
}
