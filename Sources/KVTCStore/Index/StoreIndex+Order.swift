// The order in which pages leave RAM: the lists of a tenant, one for each priority.
extension StoreIndex {
    /// Marks the entry as just used.
    mutating func touch(_ entry: PageEntry, _ use: UInt64) {
        entry.lastUse = use
        entry.ram?.noteUse(entry.lastUse)
        if let list = entry.list { moveToEnd(entry.number, of: list, tenant: entry.key.tenant) }
    }

    mutating func moveToEnd(_ number: UInt32, of list: Int, tenant: UInt32) {
        pages.moveToEnd(number, of: &tenants[tenant]!.lists[list])
    }

    mutating func unlink(_ entry: PageEntry) {
        if let list = entry.list { pages.unlink(entry.number, from: &tenants[entry.key.tenant]!.lists[list]) }
        entry.list = nil
    }

    /// Lets a page that has come into RAM leave it just before the last of the pages `before` it that are there too.
    mutating func place(_ entry: PageEntry, after before: ArraySlice<StoreKey>) {
        // Who asks for a page twice has it before itself.
        guard let list = entry.list, let neighbour = lastInRAM(before.suffix(64), list), neighbour != entry.number
        else { return }
        pages.unlink(entry.number, from: &tenants[entry.key.tenant]!.lists[list])
        pages.insert(entry.number, before: neighbour, in: &tenants[entry.key.tenant]!.lists[list])
    }

    func wantedList(_ entry: PageEntry) -> Int? {
        entry.ram == nil ? nil : entry.isProtected ? TenantPages.protectedList : Int(entry.attributes.priority)
    }

    /// The number of the last of the pages that is linked in that list, or in any.
    func lastInRAM(_ keys: ArraySlice<StoreKey>, _ wanted: Int? = nil) -> UInt32? {
        for key in keys.reversed() {
            guard let number = pages.find(key), let list = pages.list(number) else { continue }
            if list == wanted ?? list { return number }
        }
        return nil
    }

    mutating func relink(_ entry: PageEntry) {
        let wanted = wantedList(entry)
        guard wanted != entry.list else { return }
        unlink(entry)
        entry.list = wanted
        guard let wanted else { return }
        if let follower = follower(of: entry, in: wanted) {
            pages.insert(entry.number, before: follower, in: &tenants[entry.key.tenant]!.lists[wanted])
        } else {
            pages.append(entry.number, to: &tenants[entry.key.tenant]!.lists[wanted])
        }
    }

    /// The page that is to leave RAM right after one that comes into a list, as from its coder; nil where that is the one used last
    /// of all. It was used later, or in the same use and lies nearer to the beginning of its conversation.
    func follower(of entry: PageEntry, in list: Int) -> UInt32? {
        var follower: UInt32?
        var number = tenants[entry.key.tenant]?.lists[list].newest ?? PageList.none
        // Where much was used since, some of the order is worth less than the time to find it.
        for _ in 0..<1024 {
            guard number != PageList.none else { break }
            let (use, position) = (pages.lastUse(number), pages.firstPosition(number))
            guard use > entry.lastUse || use == entry.lastUse && position < entry.attributes.firstPosition else {
                break
            }
            follower = number
            number = pages[number].previous
        }
        return follower
    }
}
