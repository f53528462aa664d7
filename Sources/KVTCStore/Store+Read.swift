extension Store {
    /// What a lookup under the lock found; the bytes are read outside it.
    private enum Found {
        case nothing
        case ram(PageEntry, RAMExtent, hash: UInt64)
        case disk(PageEntry, DiskLocation, length: Int, hash: UInt64, version: UInt32)
    }

    /// Finds a page, verifies it and lets `body` see its bytes. The buffer is valid inside `body` only and stays intact
    /// there even when another thread evicts, replaces or removes the page.
    ///
    /// A page on disk is read from there and kept in RAM as well when that costs no disk write.
    public func read<Value, Failure: Error>(
        _ key: StoreKey, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Value
    ) throws(Failure) -> ReadOutcome<Value> {
        switch find(key, counted: true) {
        case .nothing: return .miss
        case .ram(let entry, let extent, let hash):
            let bytes = extent.bytes
            guard checksum(bytes) == hash else {
                reject(entry) { $0.ram === extent }
                return .corrupt
            }
            countHit()
            return .hit(try body(bytes))
        case .disk(let entry, let location, let length, let hash, let version):
            let buffer = RecordBuffer(bytes: location.recordBytes)
            switch readRecord(key, location, length: length, hash: hash, into: buffer) {
            case .failed:
                index.withLock { $0.counters.misses += 1 }
                return .miss
            case .corrupt:
                reject(entry) { $0.version == version && $0.disk?.segment === location.segment }
                return .corrupt
            case .intact(let bytes):
                countHit()
                promote(entry, bytes, version: version)
                return .hit(try body(bytes))
            }
        }
    }

    private func find(_ key: StoreKey, counted: Bool) -> Found {
        index.withLock { index in
            guard let entry = index.live(key, at: now) else {
                if counted { index.counters.misses += 1 }
                return .nothing
            }
            index.touch(entry)
            if let extent = entry.ram { return .ram(entry, extent, hash: entry.hash) }
            guard let location = entry.disk else { preconditionFailure("a page is neither in RAM nor on disk") }
            return .disk(entry, location, length: entry.length, hash: entry.hash, version: entry.version)
        }
    }

    private func countHit() { index.withLock { $0.counters.hits += 1 } }

    /// Removes a page whose bytes are bad, unless it has other bytes by now.
    func reject(_ entry: PageEntry, _ isSame: (PageEntry) -> Bool) {
        index.withLock { index in
            index.counters.corrupt += 1
            if index.pages[entry.key] === entry, isSame(entry) { index.remove(entry) }
        }
    }

    /// Keeps bytes just read from disk in RAM, if room can be made without writing.
    private func promote(_ entry: PageEntry, _ bytes: UnsafeRawBufferPointer, version: UInt32) {
        guard let extent = reserveWithoutWriting(bytes.count, for: entry.key.tenant) else { return }
        extent.fill(bytes)
        index.withLock { index in
            guard index.pages[entry.key] === entry, entry.version == version, entry.ram == nil else { return }
            index.mutate(entry) { $0.ram = extent }
        }
    }

    /// Brings a page from disk into RAM, writing others out if need be. False when it is not there or cannot be brought.
    public func prefetch(_ key: StoreKey) -> Bool {
        guard case .disk(let entry, let location, let length, let hash, let version) = find(key, counted: false) else {
            return residence(key) == .ram
        }
        let buffer = RecordBuffer(bytes: location.recordBytes)
        switch readRecord(key, location, length: length, hash: hash, into: buffer) {
        case .failed: return false
        case .corrupt:
            reject(entry) { $0.version == version && $0.disk?.segment === location.segment }
            return false
        case .intact(let bytes):
            guard let extent = reserve(bytes.count, for: key.tenant) else { return false }
            extent.fill(bytes)
            return index.withLock { index in
                guard index.pages[entry.key] === entry, entry.version == version else { return false }
                if entry.ram == nil { index.mutate(entry) { $0.ram = extent } }
                return true
            }
        }
    }

    /// Where the page can be read from; does not count as a use.
    public func residence(_ key: StoreKey) -> Residence {
        index.withLock { index in
            guard let entry = index.live(key, at: now) else { return .absent }
            return entry.ram == nil ? .disk : .ram
        }
    }

    /// The page's attributes; nil when it is not there. Does not count as a use.
    public func attributes(_ key: StoreKey) -> PageAttributes? {
        index.withLock { $0.live(key, at: now)?.attributes }
    }

    /// Bytes of the page as stored; nil when it is not there.
    public func length(_ key: StoreKey) -> Int? {
        index.withLock { $0.live(key, at: now)?.length }
    }
}
