extension Store {
    /// Sees to it that a record of that size fits into the disk budget: drops expired pages, set-aside files, then the
    /// segments worth least, as a rule the oldest, whose pages are carried over where they are protected or were used since they were written.
    func makeRoom(_ recordBytes: Int, _ log: inout DiskLog) throws(StoreError) {
        // Bounded by the number of segments, which keeps a budget full of protected pages from being rewritten for ever.
        var attempts = log.segments.count + 2
        while !log.fits(recordBytes, reserve: false) || log.segments.count > DiskLog.maxSegments {
            if log.removeSetAside() { continue }
            guard attempts > 0, !log.segments.isEmpty else { throw .diskFull }
            attempts -= 1
            try expectProgress(recordBytes, log)
            try dropLeastWorth(&log)
        }
    }

    /// Throws ``StoreError/diskFull`` without any I/O when protected pages alone leave no room.
    private func expectProgress(_ recordBytes: Int, _ log: borrowing DiskLog) throws(StoreError) {
        let protected = index.withLock { index in
            _ = index.purgeExpired(at: now) + index.purgeCompact(at: now)
            index.releaseOverdue(at: milliseconds)
            return index.pages.entries.reduce(index.pages.pinnedBytes) { sum, entry in
                entry.isProtected ? sum + (entry.disk?.recordBytes ?? 0) : sum
            }
        }
        if protected + recordBytes + log.segmentBytes > log.budget { throw .diskFull }
    }

    /// What is to become of a page of a segment about to be dropped.
    private struct Survivor: Sendable {
        let entry: PageEntry
        let location: DiskLocation
        let mandatory: Bool
        let length: Int
        let snapshot: PageAttributes
        let lastUse: UInt64
    }

    /// Drops a segment. Pages carried over are durable elsewhere before the file goes, and so is what it says of earlier ones.
    private func dropLeastWorth(_ log: inout DiskLog) throws(StoreError) {
        if log.segments.count == 1, log.hasActive { try log.sealActive() }
        var oldest = log.segments[log.leastWorth]
        var said: [SegmentRecord] = []
        if oldest.segment !== log.segments[0].segment {
            var scanner = SegmentScanner(segment: oldest.segment, size: oldest.tail)
            scanner.scan()
            said = scanner.records
            // What the very oldest one says need not be known.
            if scanner.readErrors > 0 { (oldest, said) = (log.segments[0], []) }
        }
        let id = oldest.segment.id
        let (survivors, shadowed) = index.withLock { index in
            let modest = index.withinDiskShare(budget: log.budget)
            return (
                chooseSurvivors(&index, segment: id, limit: oldest.end / 2, modest: modest), index.shadowed(by: id)
            )
        }
        var moved: [(Survivor, DiskLocation)] = []
        var failure: StoreError?
        for entry in shadowed { _ = try writePage(entry, &log, reserve: true) }
        for survivor in survivors where failure == nil {
            do {
                guard let location = try copy(survivor, &log) else { continue }
                moved.append((survivor, location))
            } catch {
                if survivor.mandatory || error != .diskFull { failure = error }
            }
        }
        if !moved.isEmpty || !shadowed.isEmpty { try log.sync() }
        // A sync that failed on the way leaves where they are those copied until then.
        let carried = moved.filter { log.isSound($0.1.segment) }
        index.withLock { index in
            for (survivor, location) in carried {
                index.move(survivor.entry.key, from: survivor.location, to: location)
            }
        }
        // Only now: the next attempt need not copy them again.
        if let failure { throw failure }
        try repeatRemovals(said, of: oldest.segment, &log)
        try log.removeSegment(id)
        index.withLock { $0.drop(segment: id) }
    }

    /// Says again what the records of a segment that goes before earlier ones say of those: what is removed, has other bytes or
    /// other marks by now.
    private func repeatRemovals(
        _ records: [SegmentRecord], of segment: Segment, _ log: inout DiskLog
    ) throws(StoreError) {
        guard !records.isEmpty else { return }
        for record in records {
            let position = LogPosition(segment: segment.id, offset: record.offset)
            let header = index.withLock { $0.repeated(record.header, at: position, isUnread: segment.isUnread) }
            if let header { _ = try log.append(header, reserve: true, makesRoom: true) }
        }
        try log.sync()
    }

    /// Protected pages always, and those of tenants that keep within their share; others if they were used since they were
    /// written, the best first, up to `limit` bytes. Pages that are in RAM as well need no copy unless they are protected.
    private func chooseSurvivors(
        _ index: inout StoreIndex, segment: UInt64, limit: Int, modest: Set<UInt32>
    ) -> [Survivor] {
        let entries = index.entries(in: segment) { $0.isPinned || $0.isUsed || modest.contains($0.key.tenant) }
        let survivors = entries.compactMap { entry -> Survivor? in
            guard let location = entry.disk else { return nil }
            let used = entry.lastUse > entry.writtenUse || modest.contains(entry.key.tenant)
            guard entry.isProtected || (used && entry.ram == nil) else { return nil }
            return Survivor(
                entry: entry, location: location, mandatory: entry.isProtected, length: entry.length,
                snapshot: entry.attributes, lastUse: entry.lastUse)
        }
        let optional = survivors.filter { !$0.mandatory }.sorted { a, b in
            (a.snapshot.priority, a.lastUse, b.snapshot.firstPosition)
                > (b.snapshot.priority, b.lastUse, a.snapshot.firstPosition)
        }
        var room = limit
        let (few, many) = (
            optional.filter { modest.contains($0.entry.key.tenant) },
            optional.filter { !modest.contains($0.entry.key.tenant) }
        )
        let chosen = many.prefix { survivor in
            room -= survivor.location.recordBytes
            return room >= 0
        }
        return survivors.filter(\.mandatory) + few + chosen
    }

    /// Copies a record to the end of the log; nil when it cannot be read intact.
    private func copy(_ survivor: Survivor, _ log: inout DiskLog) throws(StoreError) -> DiskLocation? {
        let buffer = RecordBuffer(bytes: survivor.location.recordBytes)
        let key = survivor.entry.key
        let read = readRecord(key, survivor.location, length: survivor.length, into: buffer)
        guard case .intact(let payload, let hash) = read else {
            // A protected page that the device fails to deliver now may be readable later: keep its segment.
            if case .failed = read, survivor.mandatory {
                let error = DeviceError(
                    operation: "pread", path: survivor.location.segment.path, code: DeviceError.ioError)
                log.writeFailure = error
                throw .io(error)
            }
            if case .corrupt = read { reject(key, at: survivor.location) }
            return nil
        }
        let header = RecordHeader(
            kind: .page, key: key, attributes: survivor.snapshot, payloadBytes: survivor.length,
            payloadHash: hash)
        return try log.append(header, payload: payload, reserve: true, makesRoom: survivor.mandatory)
    }

    /// Writes pages again that are only in a segment whose sync failed.
    func rescue(_ entry: PageEntry, _ log: inout DiskLog) throws(StoreError) {
        let survivor = index.withLock { index -> Survivor? in
            guard index.pages.contains(entry), let location = entry.disk, !index.isSafe(entry) else { return nil }
            return Survivor(
                entry: entry, location: location, mandatory: true, length: entry.length, snapshot: entry.attributes,
                lastUse: entry.lastUse)
        }
        guard let survivor else { return }
        try makeRoom(survivor.location.recordBytes, &log)
        guard let location = try copy(survivor, &log) else { return }
        index.withLock { $0.move(entry.key, from: survivor.location, to: location) }
    }
}
