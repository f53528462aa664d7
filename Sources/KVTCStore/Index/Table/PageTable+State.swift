// How a page is, whether it has an expanded entry or a compact one only: callers need not know which.
extension PageTable {
    /// Whether it can be read from RAM.
    func isInRAM(_ number: UInt32) -> Bool { expanded(number).map { $0.ram != nil } ?? (self[number].state == .inRAM) }

    /// Whether a page in RAM lies in the arena.
    func isIn(_ arena: RAMArena, _ number: UInt32) -> Bool {
        expanded(number).map { $0.ram?.arena === arena } ?? (arenas[self[number].arena] === arena)
    }

    /// Whether the disk has its present bytes.
    func isOnDisk(_ number: UInt32) -> Bool { expanded(number).map { $0.disk != nil } ?? self[number].isOnDisk }

    /// Where its present bytes lie on disk.
    func location(_ number: UInt32) -> DiskLocation? {
        if let entry = expanded(number) { return entry.disk }
        let page = self[number]
        return page.isOnDisk ? DiskLocation(segments[page.segment], page.offset, page.recordBytes) : nil
    }

    /// Whether it waits for the disk: its present bytes are in RAM only.
    func isDirty(_ number: UInt32) -> Bool { expanded(number)?.isDirty ?? !self[number].isOnDisk }

    /// Whether its attributes wait for the disk.
    func attributesDirty(_ number: UInt32) -> Bool { expanded(number)?.attributesDirty ?? self[number].attributesDirty }

    func isPinned(_ number: UInt32) -> Bool { expanded(number)?.attributes.pinned ?? self[number].isPinned }

    /// Whether it may not be dropped to make room. Of a page that is leased or held the entry is expanded.
    func isProtected(_ number: UInt32) -> Bool { expanded(number)?.isProtected ?? self[number].isPinned }

    func isExpired(_ number: UInt32, at now: Moment) -> Bool {
        expanded(number)?.isExpired(at: now) ?? self[number].isExpired(at: now.second)
    }

    /// When it expires; nil: never.
    func expiry(_ number: UInt32) -> UInt64? {
        if let entry = expanded(number) { return entry.attributes.expires }
        return self[number].expiry
    }

    func attributes(_ number: UInt32) -> PageAttributes {
        expanded(number)?.attributes ?? self[number].attributes(ttl: ttl(number))
    }

    /// What readers ask of a page, all at once.
    func view(_ number: UInt32) -> PageView {
        if let entry = expanded(number) {
            return PageView(attributes: entry.attributes, length: entry.length, isInRAM: entry.ram != nil)
        }
        let page = self[number]
        return PageView(
            attributes: page.attributes(ttl: ttl(number)), length: page.bytes, isInRAM: page.state == .inRAM)
    }

    func priority(_ number: UInt32) -> UInt8 { expanded(number)?.attributes.priority ?? self[number].priority }

    func firstPosition(_ number: UInt32) -> UInt32 {
        expanded(number)?.attributes.firstPosition ?? self[number].firstPosition
    }

    /// Bytes of the page.
    func length(_ number: UInt32) -> Int { expanded(number)?.length ?? self[number].bytes }

    /// The list of its tenant that a page in RAM is linked in.
    func list(_ number: UInt32) -> Int? {
        let page = self[number]
        return page.state == .inRAM ? page.list : expanded(number)?.list
    }

    /// Position in the order of use.
    func lastUse(_ number: UInt32) -> UInt64 {
        let page = self[number]
        return switch page.state {
        case .free: 0
        case .expanded: entries[Int(page.word)].lastUse
        case .inRAM: arenas[page.arena].lastUse(Int(page.word))
        case .onDisk: page.use
        }
    }

    /// Seconds that a page with a compact entry lives after a use.
    private func ttl(_ number: UInt32) -> UInt32 {
        let page = self[number]
        // Of a page that never expires the slot, which is elsewhere in memory, need not be looked at.
        if page.expiry == nil { return 0 }
        return page.state == .inRAM ? arenas[page.arena].ttl(Int(page.word)) : page.place
    }

    /// Whether a use of a page with a compact entry puts its expiry off, and until when.
    func renewal(_ number: UInt32, from now: UInt64) -> UInt64? {
        guard let expiry = self[number].expiry else { return nil }
        let ttl = ttl(number)
        return ttl > 0 && now &+ UInt64(ttl) > expiry ? now &+ UInt64(ttl) : nil
    }
}
