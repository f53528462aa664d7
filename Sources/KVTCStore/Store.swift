import KVTCSystem
import Synchronization

/// Keeps pages (opaque bytes) under their keys in RAM and on disk, within two byte budgets.
///
/// Pages enter RAM, move to disk when RAM is needed, and are dropped when the disk budget is needed, least recently used
/// and lowest priority first. Pinned, leased and held pages may move but are not dropped. Every byte handed out has been
/// verified against the checksum taken when it was put.
///
/// All methods may be called from any thread. The order of the locks is in `LockOrder.swift`; callers' code runs under
/// none of them.
public final class Store: Sendable {
    /// What the store was opened with.
    public let configuration: StoreConfiguration
    let ram: RAMTier
    let reserved = ReservedBytes()
    let index: RankedMutex<StoreIndex>
    let log: RankedMutex<DiskLog?>
    let timeline: Timeline
    /// Why the disk tier is not open although there should be one; it is opened as soon as that works.
    let unopened: RankedMutex<DeviceError?>
    /// Arenas of an earlier process whose pages wait for a disk to go to.
    let surplus: RankedMutex<[RAMArena]>
    private let written = Atomic<UInt64>(0)
    private let watch: DeviceWatch
    /// Bytes that the pages of one tenant may take; 0 for no limit of its own.
    let ramPerTenant, diskPerTenant: Atomic<Int>

    init(
        configuration: StoreConfiguration, timeline: Timeline, ram: RAMTier, index: sending StoreIndex,
        log: sending DiskLog?, unopened: DeviceError?, surplus: sending [RAMArena], watch: DeviceWatch
    ) {
        self.configuration = configuration
        self.watch = watch
        ramPerTenant = Atomic(configuration.ramPerTenant)
        diskPerTenant = Atomic(configuration.diskPerTenant)
        self.timeline = timeline
        self.unopened = RankedMutex(unopened, rank: .unopened)
        self.surplus = RankedMutex(surplus, rank: .surplus)
        self.ram = ram
        self.index = RankedMutex(index, rank: .index)
        self.log = RankedMutex(log, rank: .log)
    }

    /// The largest page in bytes that can ever be put.
    public var maxPageBytes: Int { min(maxRAMPageBytes, maxDiskPageBytes ?? .max) }

    /// What an arena can take.
    package var maxRAMPageBytes: Int { ram.maxPageBytes }

    /// What a segment can take; nil without a disk tier.
    package var maxDiskPageBytes: Int? { hasDisk ? DiskLog.maxPayloadBytes(configuration) : nil }

    /// Bytes on disk that a page takes beside its own: its record's header, and its line of the segment's index.
    package static let (recordOverhead, indexedBytes) = (RecordHeader.bytes, SegmentIndex.entryBytes)

    /// Whether pages can move to disk.
    public var hasDisk: Bool { configuration.directory != nil }

    /// Bytes that went to disk since the store was opened. They grow while any flush makes progress.
    public var bytesWritten: UInt64 { written.load(ordering: .relaxed) }

    func countWritten(_ bytes: Int) { written.add(UInt64(bytes), ordering: .relaxed) }

    /// Gives tenants other limits than the store was opened with. Who has more than that by now gives way with the next page.
    public func limitTenants(ram: Int, disk: Int) {
        ramPerTenant.store(ram, ordering: .relaxed)
        diskPerTenant.store(disk, ordering: .relaxed)
    }

    /// Since when (on `MonotonicClock`) the disk has answered none of the calls that wait for it; nil while none does. Takes no
    /// lock.
    public var diskSilentSince: UInt64? { watch.silentSince }

    /// Whether the disk tier has been opened, however it is since.
    package var isDiskOpen: Bool { hasDisk && unopened.withLock { $0 == nil } }

    /// The reading of the clock that lease deadlines are measured with, in milliseconds.
    public var milliseconds: UInt64 { configuration.clock.milliseconds() }

    /// The store's time in seconds since 1970, which expiry is measured with. It is about what the wall clock shows, but goes on
    /// evenly when that is set.
    public var seconds: UInt64 { timeline.now.second }

    var now: Moment { timeline.now }

    /// Stores a page. The first one wins: a key that is there already keeps its bytes and attributes. Where the attributes have a
    /// life after each use, the put is the first, and says when the page expires.
    ///
    /// May write other pages to disk to make room, so it is as slow as the disk when RAM is full.
    public func put(
        _ key: StoreKey, bytes: UnsafeRawBufferPointer, attributes: PageAttributes, after: ArraySlice<StoreKey> = []
    ) -> PutOutcome {
        put(key, byteCount: bytes.count, attributes: attributes, after: after, fill: { Store.copy(bytes, to: $0) })
    }

    /// Stores a page whose bytes `fill` writes straight into the store's memory, all of them, and only if there is room
    /// and the key is new; it returns their XXH3-64. When `fill` throws, nothing has happened. What the attributes are may depend
    /// on what it found.
    /// - Parameter after: the pages before this one in its conversation, which leave RAM after it.
    public func put<Failure: Error>(
        _ key: StoreKey, byteCount: Int, attributes: @autoclosure () -> PageAttributes,
        after: ArraySlice<StoreKey> = [],
        fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> UInt64
    ) throws(Failure) -> PutOutcome {
        guard byteCount > 0, byteCount <= maxPageBytes else { return .tooLarge }
        if touchIfPresent(key) { return .present }
        guard let room = reserve(byteCount, for: key.tenant) else {
            index.withLock { $0.counters.full += 1 }
            return .full
        }
        return put(try PageRoom(key: key, room: room).filled(by: fill), attributes: attributes(), after: after)
    }

    /// Room for a page that is to be filled elsewhere, side by side with others; nil when the key is there already, and
    /// where ``put(_:byteCount:attributes:after:fill:)`` would not find room or refuse the size.
    public func room(for key: StoreKey, byteCount: Int) -> PageRoom? {
        guard byteCount > 0, byteCount <= maxPageBytes, residence(key) == .absent else { return nil }
        return reserve(byteCount, for: key.tenant).map { PageRoom(key: key, room: $0) }
    }

    /// Stores a page that is in the store's memory already; the first one under a key still wins.
    public func put(_ page: FilledPage, attributes: PageAttributes, after: ArraySlice<StoreKey> = []) -> PutOutcome {
        let entry = PageEntry(key: page.key, attributes: attributes, length: page.room.extent.length, hash: page.hash)
        entry.ram = page.room.extent
        return index.withLock { index in
            // Another thread may have put the same key while this one copied.
            if index.touch(page.key, at: now) != nil {
                index.counters.present += 1
                return .present
            }
            if let expired = index.entry(page.key) {
                index.remove(expired)
                index.counters.expired += 1
            }
            page.room.settle()
            if attributes.ttl > 0 { entry.live(attributes.ttl, from: now) }
            index.insert(entry, after: after)
            index.counters.stored += 1
            return .stored
        }
    }

    /// Stores a page given as an array.
    public func put(
        _ key: StoreKey, bytes: [UInt8], attributes: PageAttributes, after: ArraySlice<StoreKey> = []
    ) -> PutOutcome {
        bytes.withUnsafeBytes { put(key, bytes: $0, attributes: attributes, after: after) }
    }

    private static func copy(_ bytes: UnsafeRawBufferPointer, to room: UnsafeMutableRawBufferPointer) -> UInt64 {
        room.copyMemory(from: bytes)
        return checksum(UnsafeRawBufferPointer(room))
    }

    private func touchIfPresent(_ key: StoreKey) -> Bool {
        index.withLock { index in
            guard index.touch(key, at: now) != nil else { return false }
            index.counters.present += 1
            return true
        }
    }

    /// Puts other bytes under an existing key, as when a raw page has been coded. Priority, pin and expiry that changed
    /// meanwhile are kept; the rest of `attributes` replaces the old. False when there is no such page or no room.
    public func replace(_ key: StoreKey, bytes: UnsafeRawBufferPointer, attributes: PageAttributes) -> Bool {
        replace(key, byteCount: bytes.count, attributes: attributes, fill: { Store.copy(bytes, to: $0) })
    }

    /// The same with bytes that `fill` writes straight into the store's memory, all of them, and only if there is room; it
    /// returns their XXH3-64. When `fill` throws, nothing has happened.
    public func replace<Failure: Error>(
        _ key: StoreKey, byteCount: Int, attributes: @autoclosure () -> PageAttributes,
        fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> UInt64
    ) throws(Failure) -> Bool {
        guard byteCount > 0, byteCount <= maxPageBytes, residence(key) != .absent else { return false }
        guard let room = reserve(byteCount, for: key.tenant) else { return false }
        let hash = try room.extent.fill(by: fill)
        let attributes = attributes()
        return index.withLock { index in
            guard let entry = index.live(key, at: now) else { return false }
            room.settle()
            index.mutate(entry) { entry in
                entry.ram = room.extent
                if let disk = entry.disk { entry.shadow = disk.segment.id }
                entry.disk = nil
                entry.length = byteCount
                entry.hash = hash
                entry.version &+= 1
                entry.attributes.firstPosition = attributes.firstPosition
                entry.attributes.tokens = attributes.tokens
                entry.attributes.rawBytes = attributes.rawBytes
                entry.attributes.coded = attributes.coded
                entry.attributes.near = attributes.near
                entry.attributes.promised = attributes.promised
                entry.attributes.nonFinite = attributes.nonFinite
                entry.attributes.lossy = attributes.lossy
            }
            return true
        }
    }

    /// Replaces a page with bytes given as an array.
    public func replace(_ key: StoreKey, bytes: [UInt8], attributes: PageAttributes) -> Bool {
        bytes.withUnsafeBytes { replace(key, bytes: $0, attributes: attributes) }
    }
}
