extension Store {
    func reserve(_ length: Int) -> RAMExtent? { reserveWithoutWriting(length) }

    func reserveWithoutWriting(_ length: Int) -> RAMExtent? {
        while true {
            if let extent = ram.allocate(length) { return extent }
            let freed = index.withLock { index -> Bool in
                index.releaseOverdue(at: milliseconds)
                if index.purgeExpired(at: now, limit: 64) > 0 { return true }
                guard let entry = index.victim(includingProtected: false), !hasDisk else { return false }
                index.remove(entry)
                index.counters.dropped += 1
                return true
            }
            if !freed { return nil }
        }
    }

    func writeTombstones() {}

    func readRecord(
        _ key: StoreKey, _ location: DiskLocation, length: Int, hash: UInt64, into buffer: borrowing RecordBuffer
    ) -> RecordRead { .failed }

    /// Makes pages durable: all of them, or the given ones. Returns how many pages and bytes it wrote.
    public func flush(_ keys: [StoreKey]? = nil) throws(StoreError) -> (pages: Int, bytes: Int) { throw .noDiskTier }

    /// Opens a store.
    public static func open(_ configuration: StoreConfiguration) throws(StoreError) -> Store {
        Store(configuration: configuration, log: nil)
    }

    /// Closes the store.
    public func close() throws(StoreError) {}
}

enum RecordRead { case failed, corrupt, intact(UnsafeRawBufferPointer) }
