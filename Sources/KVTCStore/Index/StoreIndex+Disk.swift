extension StoreIndex {
    /// Records that a page has been written; false when the page is gone or has other bytes by now.
    mutating func commit(_ entry: PageEntry, _ snapshot: PageSnapshot, at location: DiskLocation) -> Bool {
        guard pages.contains(entry) else { return false }
        guard entry.version == snapshot.version else {
            // As if the bytes had been replaced right after they were written.
            entry.shadow = location.segment.id
            return false
        }
        mutate(entry) { entry in
            entry.disk = location
            entry.shadow = nil
            entry.logged = true
            entry.noteLogged(snapshot.attributes)
            entry.writtenUse = snapshot.lastUse
        }
        return true
    }

    /// Protected pages whose last durable record is in the segment but whose newer bytes are in RAM only.
    func shadowed(by segment: UInt64) -> [PageEntry] {
        pages.entries.filter { $0.shadow == segment && $0.isDirty && $0.isProtected }.sorted { $0.lastUse < $1.lastUse }
    }

    /// Forgets a segment's bookkeeping.
    mutating func forget(segment: UInt64) {
        pages.forget(segment: segment)
        unsafeSegments[segment] = nil
    }

    /// A segment's file is gone: its pages stay if they are in RAM, otherwise they are dropped.
    mutating func drop(segment: UInt64) {
        for entry in entries(in: segment, expanding: { _ in true }) {
            if entry.ram != nil {
                mutate(entry) { $0.disk = nil }
            } else {
                remove(entry)
                count(entry.key.tenant) { $0.dropped += 1 }
            }
        }
        for entry in pages.entries where entry.shadow == segment { entry.shadow = nil }
        forget(segment: segment)
    }

    /// A segment's sync failed: only records below `durable` are safe. Returns the number of pages still in it.
    mutating func abandon(_ segment: Segment, durable: Int) -> Int {
        unsafeSegments[segment.id] = durable
        // What is compact and durable may stay compact.
        let lost = entries(in: segment.id) { $0.offset >= durable }
        var left = pages.numbers(in: segment.id).count
        for entry in lost {
            if entry.ram != nil, let disk = entry.disk, disk.offset >= durable {
                mutate(entry) { $0.disk = nil }
            } else {
                left += 1
            }
        }
        return left
    }

    /// A record that may be lost is due again.
    mutating func redo(_ record: SmallRecord) {
        switch record {
        case .removal(let removal): tombstones.append(removal)
        case .attributes(let key):
            guard let entry = entry(key) else { return }
            (entry.attributesDirty, entry.marksDirty) = (true, true)
        }
    }

    mutating func takeTombstones() -> [Removal] {
        defer { tombstones.removeAll() }
        return tombstones
    }

    /// Puts tombstones back that could not be written, before those that came later.
    mutating func returnTombstones(_ removals: [Removal]) { tombstones.insert(contentsOf: removals, at: 0) }

    /// Whether the page's present bytes would survive a power cut once the log is synced.
    func isSafe(_ entry: PageEntry) -> Bool { isSafe(entry.disk) }

    private func isSafe(_ disk: DiskLocation?) -> Bool {
        guard let disk else { return false }
        return disk.offset < unsafeSegments[disk.segment.id] ?? .max
    }

    /// The same by number; a page that is gone needs nothing more.
    func isSafe(_ number: UInt32) -> Bool {
        let state = pages[number].state
        if state == .free || state == .onDisk { return true }
        return isSafe(pages.location(number))
    }

    /// Whether that holds for its attributes too.
    func isDurable(_ number: UInt32) -> Bool {
        !pages.attributesDirty(number) && isSafe(number)
    }

    /// The least recently used page that is in RAM only.
    var firstDirty: StoreKey? {
        let oldest = tenants.values.filter { $0.usage.dirtyPages > 0 }.flatMap { tenant in
            tenant.lists.compactMap { list in
                pages.first(list, where: pages.isDirty)
            }
        }
        return oldest.min { pages.lastUse($0) < pages.lastUse($1) }.map { pages[$0].key }
    }

    /// Drops the RAM copy of a page that is on disk.
    mutating func evictFromRAM(_ entry: PageEntry) {
        guard pages.contains(entry), entry.ram != nil, entry.disk != nil else { return }
        mutate(entry) { $0.ram = nil }
        count(entry.key.tenant) { $0.evictedToDisk += 1 }
    }

    /// Drops an unprotected page altogether; false when it is protected or gone.
    mutating func drop(_ entry: PageEntry) -> Bool {
        guard pages.contains(entry), !entry.isProtected else { return false }
        remove(entry)
        count(entry.key.tenant) { $0.dropped += 1 }
        return true
    }
}
