import Synchronization

extension Store {
    /// Opens a store. Pages that were on disk or in kept arenas are there again; damaged records are skipped and counted, damaged segment
    /// files are set aside with the suffix `.corrupt`, and neither keeps the store from opening.
    ///
    /// Throws when the directory is in use, was written by a newer version, or cannot be used, or a budget makes no
    /// sense.
    public static func open(_ configuration: StoreConfiguration) throws(StoreError) -> Store {
        guard configuration.ramBudget >= ExtentAllocator.granularity, configuration.arenaBytes > 0 else {
            throw .invalid("the RAM budget is smaller than \(ExtentAllocator.granularity) bytes")
        }
        if configuration.directory != nil {
            guard configuration.segmentBytes > 0, DiskLog.maxPayloadBytes(configuration) >= ExtentAllocator.granularity
            else {
                throw .invalid("the disk budget or the segment size is too small for a page of 512 bytes")
            }
        }
        let ram = RAMTier(configuration)
        var index = StoreIndex(awakeLimit: configuration.awakePages)
        // Pages in RAM come first: whatever the log says of their keys is older.
        var inheritance = ram.inherit()
        index.inherit(inheritance.pages)
        inheritance.pages = []
        index.pages.restSome(beyond: index.awakeLimit, looking: index.pages.count)
        var recovered: RecoveredLog?
        if let directory = configuration.directory {
            recovered = try DiskLog.open(configuration, directory: directory) { segment, records in
                for record in records { index.replay(record, in: segment) }
            }
        }
        index.settle(recovered, inheritance, now: configuration.clock.wallSeconds())
        let store = Store(configuration: configuration, ram: ram, index: index, log: recovered?.log)
        // The budgets may have shrunk since; a failure here shows in the state and does not keep the store from opening.
        if store.hasDisk {
            try? store.withLog { (log) throws(StoreError) in try store.makeRoom(0, &log) }
        }
        for arena in inheritance.surplus { store.empty(arena) }
        return store
    }

    /// Moves the pages of an arena that the budget has no place for.
    private func empty(_ arena: RAMArena) {
        let entries = index.withLock { index in
            let numbers = index.inRAM.filter { index.pages.isIn(arena, $0) }
            return numbers.map { index.entry($0) }.sorted { $0.lastUse > $1.lastUse }
        }
        for entry in entries {
            // Making room may have moved it to disk meanwhile.
            guard let extent = index.withLock({ index in index.pages.contains(entry) ? entry.ram : nil }) else {
                continue
            }
            let room = reserve(extent.length, for: entry.key.tenant)
            room?.extent.fill(extent.bytes)
            index.withLock { index in
                guard index.pages.contains(entry), entry.ram === extent else { return }
                if let room {
                    room.settle()
                    index.mutate(entry) { $0.ram = room.extent }
                } else if entry.disk != nil {
                    index.evictFromRAM(entry)
                } else {
                    index.remove(entry)
                    index.count(entry.key.tenant) { $0.dropped += 1 }
                }
            }
        }
        index.withLock { $0.pages.forget(arena) }
        ram.letGo(arena)
    }
}

extension StoreIndex {
    /// Counts what was found, and leaves out what has expired meanwhile.
    fileprivate mutating func settle(_ recovered: RecoveredLog?, _ inherited: RAMTier.Inheritance, now: UInt64) {
        mayMissRecords = recovered?.missesRecords == true
        _ = purgeExpired(at: now) + purgeResting(at: now, looking: .max)
        counters.recovered = UInt64(pages.count)
        counters.corrupt = UInt64((recovered?.skipped ?? 0) + inherited.damaged)
        counters.corruptSegments = UInt64(recovered?.corruptSegments ?? 0)
        counters.refusedArenas = UInt64(inherited.refused)
    }

    /// Applies one record of the log; later records win.
    mutating func replay(_ record: SegmentScanner.Record, in segment: Segment) {
        let header = record.header
        if let removal = Removal(header, at: LogPosition(segment: segment.id, offset: record.offset)) {
            return replay(removal, in: segment)
        }
        let old = entry(header.key)
        if let old, old.ram != nil { return replay(record, in: segment, inRAM: old) }
        switch header.kind {
        case .seal, .index, .tombstone, .tenantTombstone: break
        case .attributes:
            guard let old else { return }
            mutate(old) { $0.attributes.take(header.attributes) }
            if let expires = header.attributes.expires { expiry.push(expires, old.number) }
        case .page:
            if let old { forgetReplayed(old) }
            let entry = PageEntry(
                key: header.key, attributes: header.attributes, length: header.payloadBytes, hash: header.payloadHash)
            entry.disk = DiskLocation(segment, record.offset, header.recordBytes)
            entry.logged = true
            insert(entry)
            entry.writtenUse = entry.lastUse
            restIfPossible(entry)
        }
    }

    /// Takes out what a removal covers. A page in RAM is newer: of it only the record on disk goes.
    private mutating func replay(_ removal: Removal, in segment: Segment) {
        var removal = removal
        // What an earlier process found without reading this may by now be promised: it lies in earlier segments, or was
        // written again in later ones.
        if segment.isUnread { removal.since = segment.id }
        for key in removal.isWholeTenant ? keys(tenant: removal.key.tenant) : [removal.key] {
            guard let entry = entry(key) else { continue }
            let isCovered = entry.disk.map(removal.covers) ?? true
            if entry.ram != nil {
                if isCovered { mutate(entry) { $0.disk = nil } }
                entry.shadow = nil
            } else if isCovered {
                forgetReplayed(entry)
            } else {
                restIfPossible(entry)
            }
        }
    }

    /// Notes what the log has of a page that is in RAM, where its bytes and attributes are newer or the same.
    private mutating func replay(_ record: SegmentScanner.Record, in segment: Segment, inRAM entry: PageEntry) {
        let header = record.header
        switch header.kind {
        case .seal, .index, .tombstone, .tenantTombstone: break
        case .attributes:
            var logged = entry.attributes
            logged.take(header.attributes)
            entry.noteLogged(logged)
        case .page:
            entry.logged = true
            let isSame = header.payloadHash == entry.hash && header.payloadBytes == entry.length
            mutate(entry) { entry in
                entry.disk = isSame ? DiskLocation(segment, record.offset, header.recordBytes) : nil
            }
            entry.shadow = isSame ? nil : segment.id
            entry.noteLogged(header.attributes)
            entry.writtenUse = entry.lastUse
        }
    }

    /// Takes out an entry that a later record overrides; that record is in the log, so no tombstone is due.
    private mutating func forgetReplayed(_ entry: PageEntry) {
        entry.logged = false
        remove(entry)
    }
}
