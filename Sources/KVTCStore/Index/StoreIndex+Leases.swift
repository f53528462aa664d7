extension StoreIndex {
    mutating func lease(_ keys: [StoreKey], until deadline: UInt64, now: Moment) -> UInt64 {
        var entries: [StoreKey: PageEntry] = [:]
        for key in keys {
            if let entry = live(key, at: now) { entries[key] = entry }
        }
        var id: UInt64 = 0
        // Random, so that another client's lease cannot be guessed; positive as a signed number too.
        while id == 0 || leases[id] != nil { id = UInt64.random(in: 1...UInt64(Int64.max)) }
        leases[id] = Lease(deadline: deadline, entries: entries)
        for entry in entries.values { mutate(entry) { $0.leases += 1 } }
        return id
    }

    mutating func release(_ id: UInt64) -> Bool {
        guard let lease = leases.removeValue(forKey: id) else { return false }
        // As if they were used now, in the order of use, so that a lease that ran out is not punished; of a conversation the end is
        // the first to go.
        let entries = lease.entries.values.sorted { a, b in
            (a.lastUse, .max - a.attributes.firstPosition) < (b.lastUse, .max - b.attributes.firstPosition)
        }
        for entry in entries {
            guard pages.contains(entry) else {
                entry.leases -= 1
                continue
            }
            touch(entry, nextTick())
            mutate(entry) { $0.leases -= 1 }
        }
        return true
    }

    mutating func releaseOverdue(at milliseconds: UInt64) {
        for (id, lease) in leases where lease.deadline <= milliseconds { _ = release(id) }
    }

    /// Gives a lease another deadline; false when it has ended.
    mutating func extend(_ id: UInt64, until deadline: UInt64) -> Bool {
        leases[id]?.deadline = deadline
        return leases[id] != nil
    }

    func isLeased(_ id: UInt64, _ key: StoreKey) -> Bool {
        guard let entry = leases[id]?.entries[key] else { return false }
        return pages.contains(entry)
    }
}
