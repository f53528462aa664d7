import Synchronization

extension Store {
    /// Opens a store. Pages that were on disk are there again; damaged records are skipped and counted, damaged segment
    /// files are set aside with the suffix `.corrupt`, and neither keeps the store from opening.
    ///
    /// Throws when the directory is in use, was written by a newer version, or cannot be used, or a budget makes no
    /// sense.
    public static func open(_ configuration: StoreConfiguration) throws(StoreError) -> Store {
        guard configuration.ramBudget >= ExtentAllocator.granularity, configuration.arenaBytes > 0 else {
            throw .invalid("the RAM budget is smaller than \(ExtentAllocator.granularity) bytes")
        }
        guard let directory = configuration.directory else { return Store(configuration: configuration, log: nil) }
        guard configuration.segmentBytes > 0, DiskLog.maxPayloadBytes(configuration) >= ExtentAllocator.granularity
        else {
            throw .invalid("the disk budget or the segment size is too small for a page of 512 bytes")
        }
        let recovered = try DiskLog.open(configuration, directory: directory)
        let store = Store(configuration: configuration, log: recovered.log)
        store.index.withLock { index in
            let now = configuration.clock.wallSeconds()
            for (segment, record) in recovered.records { index.replay(record, in: segment, now: now) }
            _ = index.purgeExpired(at: now)
            index.counters.recovered = UInt64(index.pages.count)
            index.counters.corrupt = UInt64(recovered.skipped)
            index.counters.corruptSegments = UInt64(recovered.corruptSegments)
        }
        // The budget may have shrunk since; a failure here shows in the state and does not keep the store from opening.
        try? store.withLog { (log) throws(StoreError) in try store.makeRoom(0, &log) }
        return store
    }
}

extension StoreIndex {
    /// Applies one record of the log; later records win.
    mutating func replay(_ record: SegmentScanner.Record, in segment: Segment, now: UInt64) {
        let header = record.header
        let old = pages[header.key]
        switch header.kind {
        case .seal: break
        case .tombstone:
            if let old { forgetReplayed(old) }
        case .attributes:
            guard let old else { return }
            mutate(old) { entry in
                entry.attributes.priority = header.attributes.priority
                entry.attributes.pinned = header.attributes.pinned
                entry.attributes.expires = header.attributes.expires
            }
            if let expires = header.attributes.expires { expiry.push(expires, header.key) }
        case .page:
            if let old { forgetReplayed(old) }
            let entry = PageEntry(
                key: header.key, attributes: header.attributes, length: header.payloadBytes, hash: header.payloadHash)
            entry.disk = DiskLocation(segment: segment, offset: record.offset, recordBytes: header.recordBytes)
            entry.logged = true
            insert(entry)
            entry.writtenUse = entry.lastUse
            segmentKeys[segment.id, default: []].append(header.key)
        }
    }

    /// Takes out an entry that a later record overrides; that record is in the log, so no tombstone is due.
    private mutating func forgetReplayed(_ entry: PageEntry) {
        entry.logged = false
        remove(entry)
    }
}
