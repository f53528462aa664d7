extension Store {
    /// Keeps a page that other machines gave, in RAM as far as that costs no write, and gives it as if it had been borrowed. Where
    /// there is no room, or the key is there by now, only the caller has it.
    public func admit(_ index: Int, of use: PageUse, _ page: SharedPage, _ bytes: [UInt8]) -> BorrowedPage {
        let key = use.pages[index]
        let (hash, room) = (
            bytes.withUnsafeBytes { checksum($0) },
            reserveWithoutWriting(bytes.count, for: key.tenant, usedBefore: use.place)
        )
        if let room, keep(bytes, hash, page, in: room, index, of: use) {
            return BorrowedPage(key: key, extent: room.extent, expected: hash)
        }
        let buffer = RecordBuffer(bytes: bytes.count)
        buffer.memory.copyBytes(from: bytes)
        let copy = UnsafeRawBufferPointer(buffer.memory)
        return BorrowedPage(key: key, buffer: buffer, bytes: copy, expected: hash)
    }

    /// The same ahead of its use: others may move to disk for it. Drops none; false where there is no room or the key is there by now.
    public func admitAhead(_ index: Int, of use: PageUse, _ page: SharedPage, _ bytes: [UInt8]) -> Bool {
        guard bytes.count <= maxPageBytes,
            let room = reserveByMoving(bytes.count, for: use.pages[index].tenant, usedBefore: use.place)
        else { return false }
        return keep(bytes, bytes.withUnsafeBytes { checksum($0) }, page, in: room, index, of: use)
    }

    private func keep(
        _ bytes: [UInt8], _ hash: UInt64, _ page: SharedPage, in room: RAMReservation, _ index: Int, of use: PageUse
    ) -> Bool {
        bytes.withUnsafeBytes { room.extent.fill($0) }
        let part = PageUse.Part(use: use, index: index)
        let filled = FilledPage(key: use.pages[index], room: room, hash: hash)
        return put(filled, attributes: page.attributes, after: part.before) == .stored
    }

    /// Lets `body` see a page as it was put, and what is known of it, for other machines: that is no use of it. False where it is not
    /// there, cannot be read or is damaged.
    public func show(_ key: StoreKey, _ body: (UnsafeRawBufferPointer, PageAttributes) -> Void) -> Bool {
        let found = index.withLock { index -> (place: Found, attributes: PageAttributes)? in
            guard let number = index.pages.find(key), !index.pages.isExpired(number, at: now) else { return nil }
            let attributes = index.pages.attributes(number)
            if index.pages.isInRAM(number), let extent = index.entry(number).ram {
                return (.ram(extent, hash: index.entry(number).hash!), attributes)
            }
            return index.pages.location(number).map {
                (.disk($0, length: index.pages.length(number)), attributes)
            }
        }
        switch found?.place {
        case .ram(let extent, let hash)? where checksum(extent.bytes) == hash:
            body(extent.bytes, found!.attributes)
            return true
        case .disk(let location, let length)?:
            let buffer = RecordBuffer(bytes: location.recordBytes)
            guard case .intact(let bytes, _) = readRecord(key, location, length: length, into: buffer) else {
                return false
            }
            body(bytes, found!.attributes)
            return true
        default: return false
        }
    }
}
