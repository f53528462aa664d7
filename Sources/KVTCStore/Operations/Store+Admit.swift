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
}
