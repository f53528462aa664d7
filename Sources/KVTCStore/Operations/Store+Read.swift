extension Store {
    /// What a lookup under the lock found; the bytes are read outside it.
    enum Found {
        case nothing
        case ram(RAMExtent, hash: UInt64)
        case disk(DiskLocation, length: Int)
    }

    /// Finds a page, verifies it and lets `body` see its bytes. The buffer is valid inside `body` only and stays intact
    /// there even when another thread evicts, replaces or removes the page.
    ///
    /// A page on disk is read from there and kept in RAM as well when that costs no disk write.
    public func read<Value, Failure: Error>(
        _ key: StoreKey, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Value
    ) throws(Failure) -> ReadOutcome<Value> {
        switch find(key, counted: true, use: nil) {
        case .nothing: return .miss
        case .ram(let extent, let hash):
            let bytes = extent.bytes
            guard checksum(bytes) == hash else {
                return reject(key, inRAM: extent) ? try read(key, body) : .corrupt
            }
            countHit()
            return .hit(try body(bytes))
        case .disk(let location, let length):
            let buffer = RecordBuffer(bytes: location.recordBytes)
            switch readAndPromote(key, location, length: length, part: nil, into: buffer) {
            case .hit(let page): return .hit(try body(page.bytes))
            case .miss: return .miss
            case .corrupt: return .corrupt
            }
        }
    }

    /// Reads a page from disk into the buffer, counts the outcome, and keeps the page in RAM as well when that costs no write.
    func readAndPromote(
        _ key: StoreKey, _ location: DiskLocation, length: Int, part: PageUse.Part?, into buffer: borrowing RecordBuffer
    ) -> ReadOutcome<(bytes: UnsafeRawBufferPointer, hash: UInt64)> {
        switch readRecord(key, location, length: length, into: buffer) {
        case .failed:
            index.withLock { $0.counters.misses += 1 }
            return .miss
        case .corrupt:
            reject(key, at: location)
            return .corrupt
        case .intact(let bytes, let hash):
            countHit()
            promote(key, location, bytes, hash, part)
            return .hit((bytes, hash))
        }
    }

    /// - Parameter use: the use that this one is part of; nil: a use of its own.
    func find(_ key: StoreKey, counted: Bool, use: UInt64?) -> Found {
        index.withLock { index in
            guard let number = index.touch(key, at: now, use: use) else {
                if counted { index.counters.misses += 1 }
                return .nothing
            }
            let page = index.pages[number]
            if page.state == .onDisk { return .disk(index.pages.location(number)!, length: page.bytes) }
            let entry = index.entry(number)
            if let extent = entry.ram { return .ram(extent, hash: entry.hash!) }
            guard let location = entry.disk else { preconditionFailure("a page is neither in RAM nor on disk") }
            return .disk(location, length: entry.length)
        }
    }

    func countHit() { index.withLock { $0.counters.hits += 1 } }

    /// Takes out bytes in RAM that are bad, and the page with them if they were all there is of it. True when the disk has it.
    @discardableResult
    func reject(_ key: StoreKey, inRAM extent: RAMExtent) -> Bool {
        index.withLock { index in
            index.counters.corrupt += 1
            guard let number = index.pages.find(key), let entry = index.pages.expanded(number), entry.ram === extent
            else {
                return false
            }
            guard entry.disk != nil else {
                index.remove(entry)
                return false
            }
            index.mutate(entry) { $0.ram = nil }
            return true
        }
    }

    /// Takes out a record that is bad, and the page with it if it is not in RAM.
    func reject(_ key: StoreKey, at location: DiskLocation) {
        index.withLock { index in
            index.counters.corrupt += 1
            guard let entry = index.entry(key, at: location) else { return }
            if entry.ram == nil { index.remove(entry) } else { index.mutate(entry) { $0.disk = nil } }
        }
    }

    /// Keeps bytes just read from disk in RAM, if room can be made without writing.
    private func promote(
        _ key: StoreKey, _ location: DiskLocation, _ bytes: UnsafeRawBufferPointer, _ hash: UInt64,
        _ part: PageUse.Part?
    ) {
        let use = part?.use.place ?? .max
        guard let room = reserveWithoutWriting(bytes.count, for: key.tenant, usedBefore: use) else { return }
        room.extent.fill(bytes)
        _ = keep(room, key, location, hash, part)
    }

    /// Notes that bytes just read from disk are in RAM too; false when the page has other bytes by now.
    private func keep(
        _ room: RAMReservation, _ key: StoreKey, _ location: DiskLocation, _ hash: UInt64, _ part: PageUse.Part?
    ) -> Bool {
        index.withLock { index in
            guard let entry = index.entry(key, at: location) else { return false }
            guard entry.ram == nil else { return true }
            entry.hash = hash
            room.settle()
            // Of a page on disk the last use is known in steps only.
            entry.lastUse = max(entry.lastUse, part?.use.place ?? index.nextTick())
            index.mutate(entry) { $0.ram = room.extent }
            if let part { index.place(entry, after: part.before) }
            return true
        }
    }

    /// Brings a page from disk into RAM as far as others can move to disk for it. Drops none. False when it is not there or
    /// cannot be brought.
    public func prefetch(_ key: StoreKey) -> Bool { prefetch(key, part: nil) }

    /// The same for one of the pages that are used together, which none of them gives way to.
    public func prefetch(_ index: Int, of use: PageUse) -> Bool {
        prefetch(use.pages[index], part: PageUse.Part(use: use, index: index))
    }

    private func prefetch(_ key: StoreKey, part: PageUse.Part?) -> Bool {
        guard case .disk(let location, let length) = find(key, counted: false, use: part?.use.place) else {
            return residence(key) == .ram
        }
        let buffer = RecordBuffer(bytes: location.recordBytes)
        switch readRecord(key, location, length: length, into: buffer) {
        case .failed: return false
        case .corrupt:
            reject(key, at: location)
            return false
        case .intact(let bytes, let hash):
            guard let room = reserveByMoving(bytes.count, for: key.tenant, usedBefore: part?.use.place ?? .max) else {
                return false
            }
            room.extent.fill(bytes)
            return keep(room, key, location, hash, part)
        }
    }

    /// Where the page can be read from; does not count as a use.
    public func residence(_ key: StoreKey) -> Residence {
        index.withLock { index in
            guard let page = index.view(key, at: now) else { return .absent }
            return page.isInRAM ? .ram : .disk
        }
    }

    /// Lets `body` see the bytes of a page in RAM, which are not verified; nil when none is there. Does not count as a use.
    public func peek<Value>(_ key: StoreKey, _ body: (UnsafeRawBufferPointer) -> Value) -> Value? {
        let extent = index.withLock { $0.live(key, at: now)?.ram }
        return extent.map { body($0.bytes) }
    }

    /// Where each page can be read from, what is known of it, and its bytes as stored; does not count as a use. Taken under one
    /// lock, as one lock for each key would be handed to and fro between busy threads.
    public func survey(
        _ keys: ArraySlice<StoreKey>
    ) -> [(residence: Residence, attributes: PageAttributes, length: Int)] {
        index.withLock { $0.views(keys, at: now) }.map { page in
            page.map { ($0.isInRAM ? .ram : .disk, $0.attributes, $0.length) } ?? (.absent, PageAttributes(), 0)
        }
    }

    /// The page's attributes; nil when it is not there. Does not count as a use.
    public func attributes(_ key: StoreKey) -> PageAttributes? {
        index.withLock { $0.view(key, at: now)?.attributes }
    }

    /// Bytes of the page as stored; nil when it is not there.
    public func length(_ key: StoreKey) -> Int? {
        index.withLock { $0.view(key, at: now)?.length }
    }
}
