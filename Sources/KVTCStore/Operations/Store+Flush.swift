import Synchronization

extension Store {
    /// A page that a flush is to make durable.
    private struct Target: Sendable {
        let number: UInt32
        let tag: UInt64
        /// Nil for a page that was compact: that has no older bytes on disk.
        let entry: PageEntry?
        let version: UInt32
        /// What it takes on disk, and how much it is worth keeping.
        let recordBytes: Int
        let isProtected: Bool
        let priority: UInt8
        let lastUse: UInt64
        let firstPosition: UInt32

        /// How much it is worth to have the page on disk; greater is more. Of pages used together the beginning of a
        /// conversation is worth more than its end, which is of no use without it.
        var worth: (Int, UInt8, UInt64, UInt32) { (isProtected ? 1 : 0, priority, lastUse, .max - firstPosition) }
    }

    /// In which order a flush writes.
    public enum FlushOrder: Sendable {
        /// So that the pages most worth keeping lie in the newest segment, which goes last when room is needed.
        case mostWorthLast
        /// So that an end of the process in the middle costs what is least worth keeping: protected pages first, then
        /// those of high priority, the conversations used last, and of each its beginning.
        case mostWorthFirst
    }

    /// Makes pages durable, all of them or the given ones, with every removal so far: when this returns they survive a
    /// power cut. Returns how many pages and bytes it had to write. Pages put after the start are not covered.
    /// ``bytesWritten`` tells how it gets on.
    ///
    /// Throws when anything could not be made durable. Where the disk budget is too small for all of it, the disk has what
    /// is most worth keeping: protected pages, then those of high priority, then those used last. A failed sync is never
    /// repeated: its segment is abandoned, and the pages that are still in RAM are written elsewhere by the next flush.
    @discardableResult
    public func flush(
        _ keys: [StoreKey]? = nil, order: FlushOrder = .mostWorthLast
    ) throws(StoreError) -> (pages: Int, bytes: Int) {
        guard hasDisk else { throw .noDiskTier }
        // What kept it from opening may be gone by now.
        if unopened.withLock({ $0 != nil }) { openAgain() }
        // Before the pages are looked at: one that was on disk then may be in a segment whose sync fails the next moment.
        let failuresBefore = try withLog { (log) throws(StoreError) in log.syncFailures }
        let targets = collect(keys, order)
        let isRun =
            order == .mostWorthFirst
            && index.withLock { index in targets.contains { !index.isDurable($0.number) } }
        if isRun { try withLog { (log) throws(StoreError) in log.setRun(true) } }
        defer { if isRun { try? withLog { (log) throws(StoreError) in log.setRun(false) } } }
        let budget = configuration.diskBudget
        if targets.reduce(0, { $0 + $1.recordBytes }) <= budget,
            let written = try makeDurable(targets, failuresBefore)
        {
            return written
        }
        // Writing one page costs another its place.
        let fitting = try mostWorthKeeping(targets, order)
        guard fitting.count < targets.count, try makeDurable(fitting, failuresBefore) != nil else { throw .diskFull }
        throw .overBudget(pages: targets.count - fitting.count, protected: protectedPages())
    }

    /// What may not be dropped, wherever it is.
    private func protectedPages() -> ProtectedPages {
        var result = ProtectedPages()
        (result.budget, result.ramBudget) = (configuration.diskBudget, configuration.ramBudget)
        func add(_ length: Int, isPinned: Bool) {
            let bytes = RecordHeader.recordBytes(payload: length)!
            if isPinned {
                (result.pinned, result.pinnedBytes) = (result.pinned + 1, result.pinnedBytes + bytes)
            } else {
                (result.leased, result.leasedBytes) = (result.leased + 1, result.leasedBytes + bytes)
            }
        }
        index.withLock { index in
            for number in index.pages.numbers(where: index.pages.isProtected) {
                add(index.pages.length(number), isPinned: index.pages.isPinned(number))
            }
        }
        return result
    }

    /// Nil when that is not possible, because pages that are written cost others their place.
    private func makeDurable(
        _ targets: [Target], _ failuresBefore: Int
    ) throws(StoreError) -> (pages: Int, bytes: Int)? {
        var written = (pages: 0, bytes: 0)
        var missed = targets
        var pass = 0
        while true {
            pass += 1
            let before = missed.count
            for target in missed {
                let bytes = try makeDurable(target)
                written.pages += bytes > 0 ? 1 : 0
                written.bytes += bytes
            }
            try sync(failuresBefore)
            missed = index.withLock { index in targets.filter { !isCovered($0, index) } }
            if missed.isEmpty { return written }
            // Making room for some pages may have cost others, which are in RAM, their copy on disk.
            guard pass < Self.passes || missed.count < before else { return nil }
        }
    }

    private func mostWorthKeeping(_ targets: [Target], _ order: FlushOrder) throws(StoreError) -> [Target] {
        let largest = targets.reduce(0) { max($0, $1.recordBytes) }
        let (pinned, byWorth) = (index.withLock { $0.pages.pinnedBytes }, targets.sorted { $0.worth > $1.worth })
        let fitting = try withLog { (log) throws(StoreError) -> ArraySlice<Target> in
            // A segment is needed to go on, and there are removals and the like too.
            var room = (log.budget - log.segmentBytes) / 16 * 15 - pinned
            return byWorth.prefix { target in
                room -= log.share(target.recordBytes, largest: largest)
                return room >= 0
            }
        }
        return sorted(Array(fitting), order)
    }

    private func sorted(_ targets: [Target], _ order: FlushOrder) -> [Target] {
        switch order {
        case .mostWorthFirst: targets.sorted { $0.worth > $1.worth }
        // Priority does not count: a start takes the order of the log for the order of use.
        case .mostWorthLast:
            targets.sorted { ($0.lastUse, .max - $0.firstPosition) < ($1.lastUse, .max - $1.firstPosition) }
        }
    }

    /// How often a flush writes what it still misses before that has to become less every time.
    private static let passes = 4

    /// Makes durable what has been written. Throws also when another thread's sync has failed since, on what was written here.
    private func sync(_ failuresBefore: Int) throws(StoreError) {
        try withLog { (log) throws(StoreError) in
            try writeTombstones(index.withLock { $0.takeTombstones() }, &log)
            try log.sync()
            // What is durable in a file without a name is not to be found again.
            try giveUpLosses(&log)
            try log.markUnread()
            guard log.syncFailures == failuresBefore else {
                let unknown = DeviceError(operation: "fdatasync", path: log.directory, code: DeviceError.ioError)
                throw .io(log.failure ?? unknown)
            }
        }
    }

    /// What is to be made durable.
    private func collect(_ keys: [StoreKey]?, _ order: FlushOrder) -> [Target] {
        let targets = index.withLock { index -> [Target] in
            var targets: [Target] = []
            func add(_ number: UInt32) {
                let (page, entry) = (index.pages[number], index.pages.expanded(number))
                // What is compact and on disk only is as safe as it can be, and only its expiry may have been put off.
                if page.state == .onDisk, !page.attributesDirty { return }
                if index.pages.isExpired(number, at: now) { return }
                targets.append(
                    Target(
                        number: number, tag: page.tag, entry: entry, version: entry?.version ?? 0,
                        recordBytes: RecordHeader.recordBytes(payload: index.pages.length(number))!,
                        isProtected: index.pages.isProtected(number), priority: index.pages.priority(number),
                        lastUse: index.pages.lastUse(number), firstPosition: index.pages.firstPosition(number)))
            }
            if let keys {
                for key in keys { index.pages.find(key).map(add) }
            } else {
                for entry in index.pages.entries where entry.ram == nil { add(entry.number) }
                for number in index.inRAM { add(number) }
                if index.pages.renewed > 0 {
                    for number in index.pages.numbers(where: {
                        index.pages[$0].state == .onDisk && index.pages[$0].attributesDirty
                    }) {
                        add(number)
                    }
                }
            }
            return targets
        }
        return sorted(targets, order)
    }

    /// Writes what the log lacks of a page; returns the bytes written.
    private func makeDurable(_ target: Target) throws(StoreError) -> Int {
        // Most pages usually are on disk already; do not queue for the log for each.
        let entry = index.withLock { index -> PageEntry? in
            if index.pages[target.number].tag != target.tag || index.isDurable(target.number) { return nil }
            return target.entry ?? index.entry(target.number)
        }
        guard let entry else { return 0 }
        return try withLog { (log) throws(StoreError) -> Int in try makeDurable(entry, &log) }
    }

    private func makeDurable(_ entry: PageEntry, _ log: inout DiskLog) throws(StoreError) -> Int {
        let state = index.withLock { index -> (dirty: Bool, safe: Bool, attributes: PageAttributes?) in
            guard index.pages.contains(entry) else { return (false, true, nil) }
            let changed = entry.disk != nil && entry.attributesDirty
            return (entry.isDirty, index.isSafe(entry), changed ? entry.attributes : nil)
        }
        if state.dirty { return try writePage(entry, &log) ? entryBytes(entry) : 0 }
        if !state.safe { try rescue(entry, &log) }
        if state.attributes != nil { try writeAttributes(entry, &log) }
        return state.safe ? 0 : entryBytes(entry)
    }

    private func entryBytes(_ entry: PageEntry) -> Int { index.withLock { _ in entry.length } }

    /// Writes a record with the new attributes of a page whose bytes are on disk already.
    func writeAttributes(_ entry: PageEntry, _ log: inout DiskLog) throws(StoreError) {
        let attributes = index.withLock { index in
            index.pages.contains(entry) && entry.disk != nil && entry.attributesDirty ? entry.attributes : nil
        }
        guard let attributes else { return }
        let header = RecordHeader(
            kind: .attributes, key: entry.key, attributes: attributes, payloadBytes: 0, payloadHash: 0)
        try makeRoom(header.recordBytes, &log)
        // A removal in the meantime left its tombstone pending, so it comes after this record in the log.
        _ = try log.append(header)
        index.withLock { index in
            // They may have changed meanwhile, or a record with later ones may lie before this one.
            entry.noteLogged(attributes)
            index.compactIfPossible(entry)
        }
    }

    private func isCovered(_ target: Target, _ index: borrowing StoreIndex) -> Bool {
        let isSame = index.pages[target.number].tag == target.tag
        guard let entry = target.entry ?? (isSame ? index.pages.expanded(target.number) : nil) else {
            return !isSame || index.pages.isExpired(target.number, at: now) || index.isSafe(target.number)
        }
        guard index.pages.contains(entry), !entry.isExpired(at: now) else { return true }
        // Bytes replaced meanwhile are not covered, but the durable older record still is there.
        if entry.version != target.version, entry.shadow != nil { return true }
        return index.isSafe(entry)
    }

    /// Syncs and completes the segment in use and gives the directory back. Flushes nothing: call ``flush(_:order:)``
    /// before. Reads and puts into RAM go on working, nothing more reaches the disk.
    public func close() throws(StoreError) {
        try log.withLock { (log) throws(StoreError) in
            guard log != nil else { return }
            defer {
                settle(&log!)
                log = nil
            }
            try log!.sealActive()
            try log!.sync()
            try log!.writeMark()
        }
    }
}
