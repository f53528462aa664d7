import Synchronization

extension Store {
    /// Opens a store. Pages that were on disk or in kept arenas are there again; damaged records are skipped and counted, damaged segment
    /// files are set aside with the suffix `.corrupt`, and neither keeps the store from opening.
    ///
    /// A device that fails, is full or takes no writes does not either: the store works in RAM, its state says why, and the disk
    /// tier is opened once that is possible (see ``heal()``).
    ///
    /// Throws when the directory is in use or was written by a newer version, or a budget makes no sense.
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
        let timeline = Timeline(configuration.clock)
        let ram = RAMTier(configuration, timeline)
        var index = StoreIndex(awakeLimit: configuration.awakePages)
        // Pages in RAM come first: whatever the log says of their keys is older.
        var inheritance = ram.inherit()
        index.inherit(inheritance.pages)
        inheritance.pages = []
        index.pages.restSome(beyond: index.awakeLimit, looking: index.pages.count)
        var recovered: RecoveredLog?
        var unopened: DeviceError?
        if let directory = configuration.directory {
            do throws(StoreError) {
                recovered = try DiskLog.open(configuration, directory: directory, timeline) { segment, records in
                    for record in records { index.replay(record, in: segment) }
                }
            } catch {
                guard case .io(let reason) = error else { throw error }
                unopened = reason
            }
        }
        timeline.resume(inheritance.marks + (recovered?.log.mark.map { [$0] } ?? []))
        index.settle(recovered, inheritance, now: timeline.now)
        if let unopened { index.lackDisk(unopened) }
        let store = Store(
            configuration: configuration, timeline: timeline, ram: ram, index: index, log: recovered?.log,
            unopened: unopened, surplus: inheritance.surplus)
        store.begin()
        return store
    }

    /// What is to be done when the disk tier has been opened, or at the start without one. A failure shows in the state.
    func begin() {
        if hasDisk {
            try? withLog { (log) throws(StoreError) in
                try log.writeMark()
                // The budgets may have shrunk since.
                try makeRoom(0, &log)
            }
        }
        surplus.withLock { $0 = $0.filter { !empty($0) } }
    }

    /// Moves the pages of an arena that the budget has no place for. False when the disk fails, on account of which none is
    /// dropped.
    func empty(_ arena: RAMArena) -> Bool {
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
            if room == nil, hasDisk, case .degraded = statistics.state { return false }
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
        return true
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

    /// The disk tier could not be opened: what is there is not known.
    mutating func lackDisk(_ reason: DeviceError) {
        mayMissRecords = true
        counters.state = .degraded(reason.description)
    }

    /// Takes in what a disk tier has that could not be opened before. What was put since is newer, and what was removed since is gone.
    mutating func join(_ recovered: borrowing RecoveredLog, _ found: [(Segment, [SegmentScanner.Record])]) {
        let before = pages.count
        let removals = takeTombstones()
        mayMissRecords = false
        for (segment, records) in found {
            for record in records { replay(record, in: segment) }
        }
        for removal in removals { replay(removal) }
        returnTombstones(removals)
        mayMissRecords = recovered.missesRecords
        counters.recovered += UInt64(max(0, pages.count - before))
        counters.corrupt += UInt64(recovered.skipped)
        counters.corruptSegments += UInt64(recovered.corruptSegments)
    }

    /// Applies one record of the log; later records win.
    mutating func replay(_ record: SegmentScanner.Record, in segment: Segment) {
        let header = record.header
        if var removal = Removal(header, at: LogPosition(segment: segment.id, offset: record.offset)) {
            // What an earlier process found without reading this may by now be promised: it lies in earlier segments, or was
            // written again in later ones.
            if segment.isUnread { removal.since = segment.id }
            return replay(removal)
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
            insert(entry, use: nextReplayed(in: segment))
            entry.writtenUse = entry.lastUse
            restIfPossible(entry)
        }
    }

    /// Takes out what a removal covers. A page in RAM is newer: of it only the record on disk goes.
    mutating func replay(_ removal: Removal) {
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
