/// A change of the expiry of a page; see ``Store/update(_:pinned:priority:expiry:promised:waits:)``.
public enum ExpiryChange: Hashable, Sendable {
    /// Leave it as it is.
    case keep
    /// The page no longer expires.
    case never
    /// The page expires at this second of the store's time, used meanwhile or not.
    case at(UInt64)
    /// The page expires so many seconds after its last use.
    case after(UInt32)
    /// The same for a page that would not live as long; nothing for others.
    case afterAtLeast(UInt32)
}

extension Store {
    /// Changes what is not nil or ``ExpiryChange/keep``, and counts as a use. False when the page is not there.
    ///
    /// A page in RAM keeps the change when the process is killed. Of a page on disk only it is written at once, but for expiry,
    /// which may change with every use, and is written with the next ``flush(_:order:)``. That makes all of it durable.
    ///
    /// - Parameter waits: false: nothing is written, and ``writeMarks(_:)`` is to follow.
    @discardableResult
    public func update(
        _ key: StoreKey, pinned: Bool? = nil, priority: UInt8? = nil, expiry: ExpiryChange = .keep,
        promised: Bool? = nil, waits: Bool = true
    ) -> Bool {
        let (isThere, onDisk) = index.withLock { index -> (Bool, PageEntry?) in
            guard let entry = index.live(key, at: now) else { return (false, nil) }
            let before = entry.attributes
            let now = self.now
            index.touch(entry, index.nextTick())
            index.mutate(entry) { entry in
                if let pinned { entry.attributes.pinned = pinned }
                if let priority { entry.attributes.priority = priority }
                if let promised { entry.attributes.promised = promised }
                switch expiry {
                case .keep: if entry.isRenewed(at: now) { entry.live(before.ttl, from: now) }
                case .never: (entry.attributes.expires, entry.attributes.ttl) = (nil, 0)
                case .at(let second): (entry.attributes.expires, entry.attributes.ttl) = (second, 0)
                case .after(let ttl): entry.live(ttl, from: now)
                case .afterAtLeast(let ttl):
                    if before.expires != nil { entry.live(max(ttl, before.ttl), from: now) }
                }
                guard entry.logged else { return }
                if entry.attributes != before { entry.attributesDirty = true }
                if !entry.attributes.hasSameMarks(as: before) { entry.marksDirty = true }
            }
            // A later one is found when the earlier one comes up; that of a pinned page has gone from there.
            let (expires, wasPinned) = (entry.attributes.expires, before.pinned && !entry.attributes.pinned)
            if let expires, wasPinned || expires < before.expires ?? .max { index.expiry.push(expires, entry.number) }
            let changed = !entry.attributes.hasSameMarks(as: before)
            return (true, changed && entry.ram == nil && entry.attributesDirty ? entry : nil)
        }
        if waits, let onDisk { writeMarks(onDisk) }
        return isThere
    }

    /// Writes marks of a page on disk only that ``update(_:pinned:priority:expiry:promised:waits:)`` has left to this.
    public func writeMarks(_ key: StoreKey) {
        let entry = index.withLock { index -> PageEntry? in
            guard let number = index.pages.find(key), let entry = index.pages.expanded(number) else { return nil }
            return entry.ram == nil && entry.marksDirty ? entry : nil
        }
        if let entry { writeMarks(entry) }
    }

    /// What cannot be written now stays due.
    private func writeMarks(_ entry: PageEntry) {
        try? withLog { (log) throws(StoreError) in try writeAttributes(entry, &log) }
    }
}
