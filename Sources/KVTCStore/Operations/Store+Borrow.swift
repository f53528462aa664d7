extension Store {
    /// Finds a page without copying it. Its bytes are not to be believed before ``confirm(_:)`` or
    /// ``confirm(_:checksum:)``, so that they can be checked and used in one pass through memory.
    public func borrow(_ key: StoreKey) -> ReadOutcome<BorrowedPage> { borrow(key, part: nil) }

    /// The same for one of the pages that are used together. Read from disk it takes the place in RAM of none of them, nor of any
    /// that was used since.
    public func borrow(_ index: Int, of use: PageUse) -> ReadOutcome<BorrowedPage> {
        borrow(use.pages[index], part: PageUse.Part(use: use, index: index))
    }

    private func borrow(_ key: StoreKey, part: PageUse.Part?) -> ReadOutcome<BorrowedPage> {
        switch find(key, counted: true, use: part?.use.place) {
        case .nothing: return .miss
        case .ram(let extent, let hash):
            return .hit(BorrowedPage(key: key, extent: extent, expected: hash))
        case .disk(let location, let length):
            let buffer = RecordBuffer(bytes: location.recordBytes)
            return switch readAndPromote(key, location, length: length, part: part, into: buffer) {
            case .hit(let page): .hit(BorrowedPage(key: key, buffer: buffer, bytes: page.bytes, expected: page.hash))
            case .miss: .miss
            case .corrupt: .corrupt
            }
        }
    }

    /// Whether a borrowed page is as it was put. Bytes that are not are counted as corrupt and taken out; the page may be on
    /// disk still, and borrowing it again then brings it from there.
    public func confirm(_ page: BorrowedPage) -> Bool {
        page.isConfirmed || confirm(page, checksum: checksum(page.bytes))
    }

    /// The same for a user that has computed the XXH3-64 of all its bytes.
    public func confirm(_ page: BorrowedPage, checksum: UInt64) -> Bool {
        guard let extent = page.extent else { return true }
        guard checksum == page.expected else {
            reject(page.key, inRAM: extent)
            return false
        }
        countHit()
        return true
    }
}
