extension StoreIndex {
    /// Counts what was found, and leaves out what has expired meanwhile.
    mutating func settle(_ recovered: RecoveredLog?, _ inherited: RAMTier.Inheritance, now: Moment) {
        mayMissRecords = recovered?.missesRecords == true
        _ = purgeExpired(at: now) + purgeCompact(at: now, looking: .max)
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
    mutating func join(_ recovered: borrowing RecoveredLog, _ found: [(Segment, [SegmentRecord])]) {
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
    mutating func replay(_ record: SegmentRecord, in segment: Segment) {
        let header = record.header
        if var removal = Removal(header, at: LogPosition(segment: segment.id, offset: record.offset)) {
            // What an earlier process found without reading this may by now be one that a flush has answered for: it
            // lies in earlier segments, or was written again in later ones.
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
            compactIfPossible(entry)
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
                compactIfPossible(entry)
            }
        }
    }

    /// Notes what the log has of a page that is in RAM, where its bytes and attributes are newer or the same.
    private mutating func replay(_ record: SegmentRecord, in segment: Segment, inRAM entry: PageEntry) {
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
