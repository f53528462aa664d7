// Pages whose time is over.
extension StoreIndex {
    /// Removes pages that have expired, but for compact ones on disk only, looking at no more than `limit`; returns how
    /// many.
    mutating func purgeExpired(at now: Moment, limit: Int = .max) -> Int {
        var (looked, purged) = (0, 0)
        var leased: [(UInt64, UInt32)] = []
        while looked < limit, let top = expiry.first, top.expires <= now.second {
            looked += 1
            _ = expiry.pop()
            // Compact ones on disk only are found by the sweep; one that is pinned comes back when it no longer is.
            let state = pages[top.number].state
            guard state != .free, state != .onDisk, let expires = pages.expiry(top.number),
                !pages.isPinned(top.number)
            else { continue }
            if expires > now.second {
                // Used since, or another page.
                expiry.push(expires, top.number)
                continue
            }
            let entry = entry(top.number)
            if entry.isExpired(at: now) {
                remove(entry)
                counters.expired += 1
                purged += 1
            } else {
                leased.append((expires, top.number))
            }
        }
        for (expires, number) in leased { expiry.push(expires, number) }
        return purged
    }

    /// Removes compact pages on disk only that have expired; returns how many. Looks at a part of them at a time.
    mutating func purgeCompact(at now: Moment, looking limit: Int = 1 << 16) -> Int {
        let numbers = pages.expired(at: now.second, looking: limit)
        for number in numbers {
            remove(entry(number))
            counters.expired += 1
        }
        return numbers.count
    }

    /// Puts off the expiry of a page that is used. Its place in the heap stays: what is found there is checked against the page.
    mutating func renew(_ entry: PageEntry, at now: Moment) {
        guard entry.isRenewed(at: now) else { return }
        mutate(entry) { entry in
            let before = entry.attributes
            entry.live(before.ttl, from: now)
            if entry.logged, entry.attributes != before { entry.attributesDirty = true }
        }
    }
}
