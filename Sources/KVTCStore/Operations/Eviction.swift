extension Store {
    /// What can be done at once about a full RAM.
    private enum Step: Sendable {
        case freed
        case mustWrite(PageEntry)
        case nothing
    }

    /// Frees RAM without I/O if the next page to go allows it: expired pages first, then the page whose turn it is, if it
    /// is on disk already or there is no disk.
    /// - Parameter use: pages used then or later, in the order of uses, are left alone.
    private func step(
        for tenant: UInt32?, needing length: Int, onlyUnprotected: Bool, usedBefore use: UInt64 = .max
    ) -> Step {
        let ownOnly = tenant.map { isOverRAMQuota($0, length) } ?? false
        return index.withLock { index in
            index.releaseOverdue(at: milliseconds)
            if index.purgeExpired(at: now, limit: 64) > 0 { return .freed }
            // Without a disk a protected page has nowhere to go.
            let victim = index.victim(
                for: tenant, needing: length, budget: ram.budget, includingProtected: hasDisk && !onlyUnprotected,
                ownOnly: ownOnly)
            guard let victim, index.pages.lastUse(victim) < use else { return .nothing }
            let entry = index.entry(victim)
            if entry.disk != nil, !entry.marksDirty {
                index.evictFromRAM(entry)
                return .freed
            }
            if hasDisk { return .mustWrite(entry) }
            return index.drop(entry) ? .freed : .nothing
        }
    }

    /// Whether a page of so many bytes finds room in one piece without another one having to leave RAM, and as many are left after.
    package func hasRoom(_ bytes: Int, for tenant: UInt32) -> Bool {
        let free = ram.budget - ram.used
        guard free >= 2 * bytes, !isOverRAMQuota(tenant, 2 * bytes) else { return false }
        // Trying costs as much as the room itself: only where what is free may be too scattered.
        return free > ram.budget / 2 || allocate(bytes, for: tenant) != nil
    }

    private func isOverRAMQuota(_ tenant: UInt32, _ bytes: Int) -> Bool {
        let quota = ramPerTenant.load(ordering: .relaxed)
        // Under the index's lock, as there a reservation becomes a page.
        return quota > 0
            && index.withLock { ($0.tenants[tenant]?.usage.ramBytes ?? 0) + reserved.of(tenant) + bytes > quota }
    }

    private func allocate(_ length: Int, for tenant: UInt32) -> RAMReservation? {
        RAMReservation(length, for: tenant, in: ram, reserved) { !isOverRAMQuota(tenant, 0) }
    }

    /// Room in RAM that costs no write; nil when the next page to go is not on disk yet, or was used at `use` or since.
    func reserveWithoutWriting(_ length: Int, for tenant: UInt32, usedBefore use: UInt64 = .max) -> RAMReservation? {
        while true {
            if let room = allocate(length, for: tenant) { return room }
            let step = step(for: tenant, needing: length, onlyUnprotected: true, usedBefore: use)
            guard case .freed = step else { return nil }
        }
    }

    /// Room in RAM for a page that is on disk: others may move there for it as long as that costs no page its place, on disk
    /// either, but none that was used at `use` or since.
    func reserveByMoving(_ length: Int, for tenant: UInt32, usedBefore use: UInt64) -> RAMReservation? {
        if let room = reserveWithoutWriting(length, for: tenant, usedBefore: use) { return room }
        let room = try? withLog { (log) throws(StoreError) -> RAMReservation? in
            while true {
                if let room = allocate(length, for: tenant) { return room }
                switch step(for: tenant, needing: length, onlyUnprotected: true, usedBefore: use) {
                case .freed: continue
                case .nothing: return nil
                case .mustWrite(let entry):
                    guard fits(entry, &log) else { return nil }
                    try move(entry, &log)
                }
            }
        }
        return room ?? nil
    }

    /// Whether a page can be written without another one having to go from the disk.
    private func fits(_ entry: PageEntry, _ log: inout DiskLog) -> Bool {
        let bytes = index.withLock { index -> Int? in
            let bytes = RecordHeader.recordBytes(payload: entry.length)!
            guard !index.isOverDiskQuota(entry.key.tenant, bytes, diskPerTenant.load(ordering: .relaxed)) else {
                return nil
            }
            return bytes + index.tombstones.count * RecordHeader.bytes
        }
        guard let bytes else { return false }
        return log.fits(bytes, reserve: false) && log.segments.count <= DiskLog.maxSegments
    }

    /// Room in RAM for a page, moving others to disk or dropping them as far as they may be. Nil when that fails: then
    /// nothing has been dropped on account of a failing disk.
    func reserve(_ length: Int, for tenant: UInt32) -> RAMReservation? {
        if let room = reserveWithoutWriting(length, for: tenant) { return room }
        guard hasDisk else { return nil }
        let room = try? withLog { (log) throws(StoreError) -> RAMReservation? in
            while true {
                if let room = allocate(length, for: tenant) { return room }
                switch step(for: tenant, needing: length, onlyUnprotected: false) {
                case .freed: continue
                case .nothing: return nil
                case .mustWrite(let entry): guard try moveToDisk(entry, &log) else { return nil }
                }
            }
        }
        return room ?? nil
    }

    /// Writes a page and drops its RAM copy. Where the disk is full of protected pages an unprotected page is dropped
    /// instead; false when that is not possible either.
    private func moveToDisk(_ entry: PageEntry, _ log: inout DiskLog) throws(StoreError) -> Bool {
        do {
            try move(entry, &log)
            return true
        } catch  where error.isFull {
            return index.withLock { $0.drop(entry) }
        }
    }

    /// Writes what the log lacks of a page, so that a kill loses nothing of it, and drops its RAM copy. Does nothing when the
    /// page is gone or has changed meanwhile; the caller looks again.
    private func move(_ entry: PageEntry, _ log: inout DiskLog) throws(StoreError) {
        var isDue = false
        if index.withLock({ $0.pages.contains(entry) && entry.isDirty }) {
            guard try writePage(entry, &log) else { return }
        } else {
            // What is said of a page that is on disk must not keep it in RAM while the disk fails: it stays due.
            do { try writeAttributes(entry, &log) } catch { isDue = true }
        }
        index.withLock { index in
            if isDue || !entry.marksDirty { index.evictFromRAM(entry) }
        }
    }

    /// Moves pages from RAM to disk in the order of eviction until `bytes` of RAM are unused, so that later puts need not
    /// wait for the disk. Returns the number of pages moved.
    @discardableResult
    public func evictToDisk(untilFree bytes: Int) throws(StoreError) -> Int {
        let before = statistics.evictedToDisk
        while ram.budget - ram.used < min(bytes, ram.budget) {
            // The lock is given back after every page: a put that waits for room comes first.
            let goesOn = try withLog { (log) throws(StoreError) -> Bool in
                switch step(for: nil, needing: 0, onlyUnprotected: false) {
                case .freed: true
                case .nothing: false
                case .mustWrite(let entry): try moveToDisk(entry, &log)
                }
            }
            if !goesOn { break }
        }
        return Int(statistics.evictedToDisk - before)
    }

    /// Moves the given pages from RAM to disk; returns how many of them now are on disk only.
    @discardableResult
    public func evictToDisk(_ keys: [StoreKey]) throws(StoreError) -> Int {
        var moved = 0
        for key in keys {
            let entry = index.withLock { index in
                index.pages.find(key).flatMap { index.pages[$0].state == .onDisk ? nil : index.entry($0) }
            }
            if let entry { try withLog { (log) throws(StoreError) in try move(entry, &log) } }
            if residence(key) == .disk { moved += 1 }
        }
        return moved
    }
}
