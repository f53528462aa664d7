extension Store {
    /// Removes a page, protected or not. A restart does not bring it back, nor a power cut once a flush has answered; while the
    /// disk fails, both hold from the first flush that works. False when it was not there.
    @discardableResult
    public func remove(_ key: StoreKey) -> Bool {
        remove([key]) == 1
    }

    /// Removes pages as ``remove(_:)-(StoreKey)`` does; returns how many were there.
    public func remove(_ keys: [StoreKey]) -> Int {
        defer { noteRemovals() }
        return takeOut(keys)
    }

    /// Removes pages without waiting for the disk, so that a restart may bring them back until ``noteRemovals()`` has been called.
    public func takeOut(_ keys: [StoreKey]) -> Int {
        index.withLock { index in
            var removed = 0
            for key in keys {
                guard let entry = index.entry(key) else {
                    if index.mayMissRecords { index.tombstones.append(Removal(key)) }
                    continue
                }
                if !entry.isExpired(at: now) { removed += 1 }
                index.remove(entry)
            }
            return removed
        }
    }

    /// Removes every page of a tenant; returns how many were there.
    public func removeAll(tenant: UInt32) -> Int {
        removeUnread(tenant: tenant)
        return remove(keys(tenant: tenant))
    }

    /// Removes what a tenant may have in records that could not be read when the store was opened.
    public func removeUnread(tenant: UInt32) {
        index.withLock { if $0.mayMissRecords { $0.tombstones.append(Removal(tenant: tenant)) } }
    }
}
