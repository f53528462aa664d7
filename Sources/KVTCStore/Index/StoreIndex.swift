/// All pages, their order of use, leases and counters. Lives behind the store's index lock and does no I/O.
struct StoreIndex {
    var pages = PageTable()
    /// Pages that stay expanded although they might be compact, so that pages in frequent use are not put down and
    /// taken up all the time.
    let expandedLimit: Int
    var tenants: [UInt32: TenantPages] = [:]
    /// Segments whose sync failed, with the offset up to which they are known to be durable.
    var unsafeSegments: [UInt64: Int] = [:]
    /// Removals of which the log has yet to tell.
    var tombstones: [Removal] = []
    /// Whether some of the log could not be read: it may have pages that are not known here.
    var mayMissRecords = false
    var counters = StoreStatistics()
    var expiry = ExpiryHeap()
    var leases: [UInt64: Lease] = [:]
    private var tick: UInt64 = 0
    /// The run of segments that is being replayed, and the use of its last page so far.
    private var replayed: (run: UInt64, use: UInt64) = (0, 0)
    /// The number of the last record written to a RAM directory.
    private var sequence: UInt64 = 0

    init(expandedLimit: Int) { self.expandedLimit = expandedLimit }

    /// Changes an entry that is in the index, keeping totals and lists right.
    mutating func mutate(_ entry: PageEntry, _ change: (PageEntry) -> Void) {
        let (extent, attributes) = (entry.ram, entry.attributes)
        account(entry, -1)
        change(entry)
        account(entry, 1)
        relink(entry)
        if entry.ram !== extent || entry.attributes != attributes { publish(entry) }
        if entry.ram !== extent { extent?.retract() }
        compactIfPossible(entry)
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
        pages.compactSome(beyond: expandedLimit, looking: 2)
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

    private mutating func account(_ entry: PageEntry, _ sign: Int) {
        tenants[entry.key.tenant, default: TenantPages()].usage.account(entry, sign)
    }

    /// Counts a page that had to leave RAM or the store.
    mutating func count(_ tenant: UInt32, _ change: (inout TenantUsage) -> Void) {
        change(&tenants[tenant, default: TenantPages()].usage)
    }
}
