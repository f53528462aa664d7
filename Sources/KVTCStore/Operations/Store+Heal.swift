extension Store {
    /// Looks after the disk tier: opens it where that failed, gives up what has vanished from it, and tries again with little while
    /// writing fails. To be called every now and then, on a thread that may wait for the disk.
    public func heal() {
        guard hasDisk else { return }
        if unopened.withLock({ $0 != nil }) { openAgain() }
        do throws(StoreError) {
            let isElsewhere = try withLog { (log) throws(StoreError) -> Bool in
                guard try log.isHere() else { return true }
                try giveUpLosses(&log)
                if log.mark.map(timeline.mark.differs) ?? true { try log.writeMark() }
                return false
            }
            if isElsewhere {
                leave(DeviceError(operation: "open", path: configuration.directory!, code: DeviceError.stale))
            }
        } catch {
            // Another process has it by now, which must not find this one's hands there.
            if case .locked(let path) = error {
                leave(DeviceError(operation: "flock", path: path, code: DeviceError.wouldBlock))
            }
        }
        if unopened.withLock({ $0 != nil }) { openAgain() }
        if case .degraded = statistics.state {
            try? probe()
        }
        surplus.withLock { $0 = $0.filter { !empty($0) } }
    }

    /// Writes a little to a disk tier that works, and waits until it is durable: a disk that hangs shows by that, see
    /// ``diskSilentSince``, and one that fails in the state.
    public func proveDisk() {
        guard hasDisk, case .ready = statistics.state else { return }
        try? withLog { (log) throws(StoreError) in try log.writeMark(synced: true) }
    }

    /// Tries whether the disk tier works again, with a page that is due or, where none is or that one finds no room, with less.
    private func probe() throws(StoreError) {
        let page = index.withLock { $0.firstDirty }
        if let page {
            do throws(StoreError) {
                try flush([page])
                return
            } catch {
                if case .io = error { throw error }
            }
        }
        try withLog { (log) throws(StoreError) in try log.writeMark(synced: true) }
        // What only a segment has whose sync failed is written again now that this can work.
        try flush(page == nil ? nil : [])
    }

    /// Takes out the pages whose records are no longer there.
    func giveUpLosses(_ log: inout DiskLog) throws(StoreError) {
        defer {
            // Each under a lock of its own: that can take a while.
            for loss in log.losses { index.withLock { $0.lose(loss) } }
            if let last = log.losses.map(\.segment).max() { repeatChanges(until: last, log) }
            log.losses.removeAll()
        }
        try log.findLosses()
    }

    /// Has removals and marks written again for all records up to a segment: what said so may have lain in what is lost.
    private func repeatChanges(until last: UInt64, _ log: borrowing DiskLog) {
        var removed: Set<StoreKey> = []
        for state in log.segments where state.segment.id <= last {
            var scanner = SegmentScanner(segment: state.segment, size: state.tail)
            scanner.scan()
            index.withLock { $0.repeatChanges(scanner.records, &removed) }
        }
    }

    /// Leaves a directory that is not this process's any more, with all that was in it.
    private func leave(_ reason: DeviceError) {
        log.withLock { log in
            guard log != nil else { return }
            for state in log!.segments {
                index.withLock { index in
                    // Those for pages that are lost now would only reach others.
                    let removals = index.takeTombstones()
                    index.lose(.vanished(state.segment.id))
                    _ = index.takeTombstones()
                    index.returnTombstones(removals)
                }
            }
            index.withLock { index in
                index.unsafeSegments = [:]
                index.lackDisk(reason)
                (index.counters.diskUsed, index.counters.segments) = (0, 0)
            }
            log = nil
            unopened.withLock { $0 = reason }
        }
    }

    /// Opens a disk tier that is not open although it should be.
    func openAgain() {
        let isOpen = log.withLock { log -> Bool in
            guard log == nil, unopened.withLock({ $0 != nil }) else { return false }
            var found: [(Segment, [SegmentRecord])] = []
            do throws(StoreError) {
                let recovered = try DiskLog.open(configuration, directory: configuration.directory!, timeline) {
                    found.append(($0, $1))
                }
                if let mark = recovered.log.mark { timeline.catchUp(with: mark) }
                index.withLock { $0.join(recovered, found) }
                log = recovered.log
                unopened.withLock { $0 = nil }
                settle(&log!)
                return true
            } catch {
                let reason =
                    if case .io(let failure) = error { failure.description } else { error.description }
                index.withLock { $0.counters.state = .degraded(reason) }
                return false
            }
        }
        if isOpen { begin() }
    }
}
