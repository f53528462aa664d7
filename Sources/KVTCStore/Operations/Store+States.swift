/// Where a page is and what stands before its turn to leave, for people who ask why it is there.
package struct PageState: Sendable {
    package var attributes: PageAttributes
    /// Bytes as stored.
    package var length: Int
    package var isInRAM: Bool
    package var isOnDisk: Bool
    package var leases: Int
    /// Seconds from now after which it is a miss; nil: never.
    package var expiresIn: UInt64?
    /// Of a page in RAM: the pages of its tenant that leave RAM sooner, and their bytes; nil beyond ``Store/mostBefore``.
    package var before: (pages: Int, bytes: Int)?
    /// Of a page on disk: how many segments are older than its own, which as a rule go first.
    package var olderSegments: Int?
}

extension Store {
    /// How many pages of a tenant are gone through, under the lock, to find the places of others: a millisecond's worth.
    package static let mostBefore = 16_384

    /// How pages of one tenant are; nil for those that are not there. Does not count as a use.
    package func states(_ keys: [StoreKey]) -> [PageState?] {
        let now = now
        return index.withLock { $0.states(keys, at: now) }
    }
}

extension StoreIndex {
    fileprivate func states(_ keys: [StoreKey], at now: Moment) -> [PageState?] {
        let numbers = keys.map { key in pages.find(key).flatMap { pages.isExpired($0, at: now) ? nil : $0 } }
        let older = olderSegments()
        let before = places(of: Set(numbers.compactMap(\.self).filter(pages.isInRAM)), keys.first?.tenant)
        return numbers.map { number in
            guard let number else { return nil }
            let attributes = pages.attributes(number)
            var state = PageState(
                attributes: attributes, length: pages.length(number), isInRAM: pages.isInRAM(number),
                isOnDisk: pages.isOnDisk(number), leases: Int(pages.expanded(number)?.leases ?? 0))
            if !attributes.pinned {
                state.expiresIn = attributes.expires.map { $0 - min($0, now.second) }
            }
            state.before = before[number]
            state.olderSegments = pages.location(number).flatMap { older[$0.segment.id] }
            return state
        }
    }

    /// Of each segment that has pages, by its id, how many are older.
    private func olderSegments() -> [UInt64: Int] {
        var ids = Set(pages.segments.pages.compactMap { $0?.segment.id })
        for entry in pages.entries { if let id = entry.disk?.segment.id { ids.insert(id) } }
        return Dictionary(uniqueKeysWithValues: ids.sorted().enumerated().map { ($1, $0) })
    }

    /// What leaves RAM before each of the wanted pages: goes through the tenant's lists in the order in which they are emptied.
    private func places(of wanted: Set<UInt32>, _ tenant: UInt32?) -> [UInt32: (pages: Int, bytes: Int)] {
        guard let lists = tenant.flatMap({ tenants[$0]?.lists }) else { return [:] }
        var found: [UInt32: (pages: Int, bytes: Int)] = [:]
        var sum = (pages: 0, bytes: 0)
        for list in lists {
            var number = list.oldest
            while number != PageList.none {
                if wanted.contains(number) { found[number] = sum }
                guard found.count < wanted.count, sum.pages < Store.mostBefore else { return found }
                sum = (sum.pages + 1, sum.bytes + pages.length(number))
                number = pages[number].next
            }
        }
        return found
    }
}
