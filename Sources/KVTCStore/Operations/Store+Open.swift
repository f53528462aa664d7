import Synchronization

extension Store {
    /// Opens a store. Pages that were on disk or in kept arenas are there again; damaged records are skipped and counted, damaged segment
    /// files are set aside with the suffix `.corrupt`, and neither keeps the store from opening.
    ///
    /// A device that fails, is full or takes no writes does not either: the store works in RAM, its state says why, and the disk
    /// tier is opened once that is possible (see ``heal()``).
    ///
    /// Throws when the directory is in use, unless there are kept arenas, or was written by a newer version, or a budget makes no sense.
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
        let watch = DeviceWatch()
        var configuration = configuration
        configuration.device = WatchedDevice(device: configuration.device, watch: watch)
        let timeline = Timeline(configuration.clock)
        let ram = RAMTier(configuration, timeline)
        var index = StoreIndex(expandedLimit: configuration.expandedPages)
        // Pages in RAM come first: whatever the log says of their keys is older.
        var inheritance = ram.inherit()
        index.inherit(inheritance.pages)
        inheritance.pages = []
        index.pages.compactSome(beyond: index.expandedLimit, looking: index.pages.count)
        var recovered: RecoveredLog?
        var unopened: DeviceError?
        if let directory = configuration.directory {
            do throws(StoreError) {
                recovered = try DiskLog.open(configuration, directory: directory, timeline) { segment, records in
                    for record in records { index.replay(record, in: segment) }
                }
            } catch {
                switch error {
                case .io(let reason): unopened = reason
                // The process before this one may hang in a call to the disk and not be gone yet. What it left of RAM is not to
                // be lost for that.
                case .locked(let path) where !(configuration.keeper?.kept.isEmpty ?? true):
                    unopened = DeviceError(operation: "flock", path: path, code: DeviceError.wouldBlock)
                default: throw error
                }
            }
        }
        timeline.resume(inheritance.marks + (recovered?.log.mark.map { [$0] } ?? []))
        index.settle(recovered, inheritance, now: timeline.now)
        if let unopened { index.lackDisk(unopened) }
        let store = Store(
            configuration: configuration, timeline: timeline, ram: ram, index: index, log: recovered?.log,
            unopened: unopened, surplus: inheritance.surplus, watch: watch)
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
