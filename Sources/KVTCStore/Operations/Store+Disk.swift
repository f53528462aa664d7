import Synchronization

extension Store {
    /// Runs `body` as the only writer of the disk tier, then tells the index and the statistics what became of it.
    func withLog<Value: Sendable>(_ body: (inout DiskLog) throws(StoreError) -> Value) throws(StoreError) -> Value {
        try log.withLock { (log) throws(StoreError) -> Value in
            guard log != nil else { throw unopened.withLock { $0 }.map(StoreError.io) ?? .noDiskTier }
            defer { settle(&log!) }
            return try body(&log!)
        }
    }

    /// After a failed sync: pages of that segment which are in RAM count as unwritten again, the others are remembered
    /// as unsafe, and tombstones are due again.
    func settle(_ log: inout DiskLog) {
        let failed = log.newlyFailed
        log.newlyFailed.removeAll()
        let small = failed.isEmpty ? [] : log.unsyncedSmall
        if !failed.isEmpty { log.unsyncedSmall.removeAll() }
        var useless: [UInt64] = []
        index.withLock { index in
            for state in failed where index.abandon(state.segment, durable: state.synced) == 0 {
                if state.synced <= SegmentHeader.bytes, !state.isInherited { useless.append(state.segment.id) }
            }
            for record in small { index.redo(record) }
        }
        // A segment without any durable or live record would only take room.
        for id in useless { try? log.removeSegment(id) }
        let (used, segments, errors, failure) = (log.used, log.segments.count, log.ioErrors, log.failure)
        log.ioErrors = 0
        index.withLock { index in
            for id in useless { index.forget(segment: id) }
            index.counters.diskUsed = used
            index.counters.segments = segments
            index.counters.ioErrors += errors
            index.counters.state = failure.map { .degraded($0.description) } ?? .ready
        }
    }

    /// Writes one page that is in RAM and not on disk. False when it no longer is such a page, or its bytes have gone bad.
    func writePage(_ entry: PageEntry, _ log: inout DiskLog, reserve: Bool = false) throws(StoreError) -> Bool {
        let (tombstones, snapshot) = index.withLock { index -> ([Removal], PageSnapshot?) in
            guard index.pages.contains(entry), entry.isDirty, let extent = entry.ram else { return ([], nil) }
            // From here on a removal must leave a tombstone, even if the write below seems to fail.
            entry.logged = true
            let tombstones = index.takeTombstones()
            let snapshot = PageSnapshot(
                extent: extent, attributes: entry.attributes, hash: entry.hash!, version: entry.version,
                lastUse: entry.lastUse)
            return (tombstones, snapshot)
        }
        guard let snapshot else { return false }
        // An older removal of the same key must lie before this record in the log.
        try writeTombstones(tombstones, &log, reserve: reserve)
        let header = RecordHeader(
            kind: .page, key: entry.key, attributes: snapshot.attributes, payloadBytes: snapshot.extent.length,
            payloadHash: snapshot.hash)
        if !reserve {
            let quota = diskPerTenant.load(ordering: .relaxed)
            guard index.withLock({ $0.trimDisk(of: entry.key.tenant, by: header.recordBytes, quota: quota) }) else {
                throw .quotaFull(tenant: entry.key.tenant)
            }
            try makeRoom(header.recordBytes, &log)
        }
        let payload = UnsafeRawBufferPointer(snapshot.extent.bytes)
        guard let location = try log.append(header, payload: payload, reserve: reserve) else {
            index.withLock { index in
                index.counters.corrupt += 1
                if index.pages.contains(entry), entry.version == snapshot.version { index.remove(entry) }
            }
            return false
        }
        countWritten(header.recordBytes)
        settle(&log)
        return index.withLock { index in index.commit(entry, snapshot, at: location) }
    }

    /// Writes tombstones; those that cannot be written stay pending.
    func writeTombstones(_ removals: [Removal], _ log: inout DiskLog, reserve: Bool = false) throws(StoreError) {
        var done = 0
        do throws(StoreError) {
            for header in removals.lazy.map(\.header) {
                if !reserve { try makeRoom(header.recordBytes, &log) }
                _ = try log.append(header, reserve: reserve)
                done += 1
            }
        } catch {
            index.withLock { $0.returnTombstones(Array(removals[done...])) }
            throw error
        }
    }

    /// Writes down what was removed so far; a failure leaves it for the next write.
    ///
    /// Waits for the log also where nothing is due: a writer may have taken the tombstones on before it has written them, and a
    /// page that was removed while its record was being written is due a tombstone only after that.
    public func noteRemovals() {
        guard hasDisk else { return }
        try? withLog { (log) throws(StoreError) in
            try writeTombstones(index.withLock { $0.takeTombstones() }, &log)
        }
    }

    /// Reads a page's record into the buffer and checks that it is the record expected there.
    func readRecord(
        _ key: StoreKey, _ location: DiskLocation, length: Int, into buffer: borrowing RecordBuffer
    ) -> RecordRead {
        let segment = location.segment
        do {
            let count = try segment.device.readAll(segment.file, segment.path, buffer.memory, at: location.offset)
            guard count == location.recordBytes else { return .corrupt }
        } catch {
            index.withLock { $0.counters.ioErrors += 1 }
            return .failed
        }
        let record = UnsafeRawBufferPointer(buffer.memory)
        let parsed = RecordHeader.parse(record, segment: segment.id, offset: location.offset, salt: segment.salt)
        guard let header = parsed, header.kind == .page, header.key == key, header.payloadBytes == length
        else { return .corrupt }
        let payload = UnsafeRawBufferPointer(rebasing: record[RecordHeader.bytes..<RecordHeader.bytes + length])
        return checksum(payload) == header.payloadHash ? .intact(payload, hash: header.payloadHash) : .corrupt
    }
}
