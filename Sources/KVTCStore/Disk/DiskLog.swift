/// The lock on the directory and, for versions that know only that one, on a file in it; closing them gives it back.
final class DirectoryLock: Sendable {
    private let path: String
    private let device: any StorageDevice
    /// Nil where the file system locks no directories.
    private let directory: Int32?
    /// Nil where the file can't be made.
    private let file: Int32?

    /// - Parameter makesFile: make the lock file when it is missing.
    init(_ path: String, _ device: any StorageDevice, makesFile: Bool = true) throws(DeviceError) {
        self.path = path
        self.device = device
        var failure: DeviceError?
        func attempt(_ lock: () throws(DeviceError) -> Int32) throws(DeviceError) -> Int32? {
            do throws(DeviceError) { return try lock() } catch {
                if error.code == DeviceError.wouldBlock { throw error }
                failure = error
                return nil
            }
        }
        let directory = try attempt { () throws(DeviceError) in try device.lockDirectory(path) }
        do throws(DeviceError) {
            file =
                try makesFile ? attempt { () throws(DeviceError) in try device.lock(path + "/" + Self.fileName) } : nil
        } catch {
            if let directory { device.close(directory) }
            throw error
        }
        self.directory = directory
        // Either will do.
        if directory == nil, file == nil, let failure { throw failure }
    }

    static let fileName = "lock"

    deinit { for file in [directory, file] { if let file { device.close(file) } } }

    /// Whether both are where they were locked.
    var isWhole: Bool {
        get throws(DeviceError) {
            if let directory, try !device.isNamed(directory, path) { return false }
            guard let file else { return directory != nil }
            return try device.isNamed(file, path + "/" + Self.fileName)
        }
    }

    /// Whether the directory is the one that was locked.
    var isHere: Bool {
        get throws(DeviceError) {
            if let directory { return try device.isNamed(directory, path) }
            return try file.map { file throws(DeviceError) in try device.isNamed(file, path + "/" + Self.fileName) }
                ?? false
        }
    }
}

/// A segment and how far it is written.
struct SegmentState: Sendable {
    let segment: Segment
    /// The end of the last good record.
    var tail: Int
    /// The file may reach to here after a failed write.
    var end: Int
    /// Durable up to here.
    var synced: Int
    /// A sync failed, or some of it cannot be read. What was not durable then may be lost although later syncs would report
    /// success, so there are none.
    var failed = false
    /// Whether an earlier process wrote it, and may have made all of it durable.
    let isInherited: Bool
    /// Where the file is now.
    var path: String

    init(segment: Segment, tail: Int, end: Int, synced: Int, isInherited: Bool) {
        self.segment = segment
        self.tail = tail
        self.end = end
        self.synced = synced
        self.isInherited = isInherited
        path = segment.path
    }
}

/// The segment files, oldest first, the last one taking appends. Knows bytes and records, not pages.
struct DiskLog: Sendable {
    /// A record without a payload that is written but not yet known to be durable.
    enum SmallRecord: Sendable {
        case removal(Removal)
        /// New attributes of the page.
        case attributes(StoreKey)

        /// What lies there; nil for records of other kinds.
        init?(_ header: RecordHeader, in segment: Segment, at offset: Int) {
            if let removal = Removal(header, at: LogPosition(segment: segment.id, offset: offset)) {
                self = .removal(removal)
            } else if header.kind == .attributes {
                self = .attributes(header.key)
            } else {
                return nil
            }
        }
    }

    let directory: String
    let device: any StorageDevice
    let budget: Int
    let segmentBytes: Int
    /// Nil when the directory is another process's by now.
    var lock: DirectoryLock?
    private let clock: StoreClock
    let timeline: Timeline
    /// As last written to the directory.
    var mark: TimeMark?
    /// Files with marks, the one that is being written included.
    var markFiles: Set<String> = []
    private let salt: @Sendable () -> UInt64

    var segments: [SegmentState] = []
    var hasActive = false
    /// What was written to the active segment.
    private var activeIndex = SegmentIndex()
    /// See ``SegmentHeader/run``; 0 outside of one.
    private var run: UInt64 = 0
    var nextID: UInt64 = 1
    /// Files that were set aside or could not be removed; they count against the budget and go first.
    var setAside: [(path: String, bytes: Int)] = []
    /// Why the last write failed, or could not get its room.
    var writeFailure: DeviceError?
    var syncFailure: DeviceError?
    private(set) var syncFailures = 0
    var ioErrors: UInt64 = 0
    /// Segments that failed since the index was last told.
    var newlyFailed: [SegmentState] = []
    var unsyncedSmall: [SmallRecord] = []
    /// Files that could not be read in full and are still to be renamed so that later processes know.
    var unread: [String] = []
    /// What has vanished since the index was last told.
    var losses: [SegmentLoss] = []

    init(_ configuration: StoreConfiguration, directory: String, lock: DirectoryLock, _ timeline: Timeline) {
        self.directory = directory
        self.timeline = timeline
        self.lock = lock
        device = configuration.device
        budget = configuration.diskBudget
        segmentBytes = Self.segmentBytes(configuration)
        clock = configuration.clock
        salt = configuration.salt
    }

    /// The configured size, so large that 512 segments fill the budget and so small that four fit.
    static func segmentBytes(_ configuration: StoreConfiguration) -> Int {
        let wanted = max(configuration.segmentBytes, configuration.diskBudget / 512)
        return min(wanted, configuration.diskBudget / 4) / RecordHeader.alignment * RecordHeader.alignment
    }

    /// The largest payload for which a segment has room beside its header, its index and its seal.
    static func maxPayloadBytes(_ configuration: StoreConfiguration) -> Int {
        let room = segmentBytes(configuration) - SegmentHeader.bytes - RecordHeader.bytes - closingBytes(1)
        return min(max(0, room), SegmentIndex.maxPayloadBytes)
    }

    /// What a record takes of the budget with its share of what else is in its segment, where records are of up to `largest`
    /// bytes.
    func share(_ recordBytes: Int, largest: Int) -> Int {
        let overhead = SegmentHeader.bytes + 2 * RecordHeader.bytes
        let records = max(1, (segmentBytes - overhead) / (largest + SegmentIndex.entryBytes))
        return recordBytes + SegmentIndex.entryBytes + overhead / records + 1
    }

    /// What completing a segment of so many records takes.
    private static func closingBytes(_ records: Int) -> Int { SegmentIndex.recordBytes(records) + RecordHeader.bytes }

    /// Every segment is an open file, and each restart may leave a short one.
    static let maxSegments = 800

    /// Bytes of all files.
    var used: Int {
        segments.reduce(markFiles.count * TimeMark.bytes) { $0 + $1.end } + setAside.reduce(0) { $0 + $1.bytes }
    }

    /// Whether a record fits into the budget. One segment's worth is kept back for records that are carried over from
    /// a segment about to be dropped.
    func fits(_ recordBytes: Int, reserve: Bool) -> Bool {
        let active = hasActive ? Self.closingBytes(activeIndex.count + 1) : 0
        let overhead = SegmentHeader.bytes + active + Self.closingBytes(1)
        return used + recordBytes + overhead <= (reserve ? budget : budget - segmentBytes)
    }

    /// Appends a record in one write. Nil when the payload no longer matches its checksum: nothing is written then.
    mutating func append(
        _ header: RecordHeader, payload: UnsafeRawBufferPointer = .init(start: nil, count: 0), reserve: Bool = false
    ) throws(StoreError) -> DiskLocation? {
        let bytes = header.recordBytes
        guard fits(bytes, reserve: reserve) else { throw .diskFull }
        leaveCutSegment()
        if hasActive, segments.last!.tail + bytes + Self.closingBytes(activeIndex.count + 1) > segmentBytes {
            try sealActive()
        }
        if !hasActive { try openSegment() }
        let state = segments.last!
        let buffer = RecordBuffer(bytes: bytes)
        let body = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[RecordHeader.bytes...])
        body.copyMemory(from: payload)
        for index in payload.count..<body.count { body[index] = 0 }
        // Checked on the copy that is written, so that bytes gone bad in RAM never get a good record.
        let copied = UnsafeRawBufferPointer(rebasing: body[..<payload.count])
        if header.kind == .page, checksum(copied) != header.payloadHash { return nil }
        header.write(to: buffer.memory, segment: state.segment.id, offset: state.tail, salt: state.segment.salt)
        try write(UnsafeRawBufferPointer(buffer.memory))
        activeIndex.append(header, at: state.tail)
        if let small = SmallRecord(header, in: state.segment, at: state.tail) { unsyncedSmall.append(small) }
        return DiskLocation(state.segment, state.tail, bytes)
    }

    /// Appends no more to a segment that was cut from outside. The next write would grow it over a hole: that it was cut could not be
    /// seen any more, and a start would not find what lies behind the hole.
    private mutating func leaveCutSegment() {
        guard hasActive, let state = segments.last else { return }
        let size = try? device.size(state.segment.file, state.segment.path)
        if size ?? 0 < state.tail { hasActive = false }
    }

    /// Writes at the tail of the last segment.
    private mutating func write(_ bytes: UnsafeRawBufferPointer) throws(StoreError) {
        let last = segments.count - 1
        let state = segments[last]
        do {
            try device.writeAll(state.segment.file, state.segment.path, bytes, at: state.tail)
        } catch {
            note(error)
            writeFailure = error
            do {
                try device.truncate(state.segment.file, state.segment.path, to: state.tail)
                segments[last].end = state.tail
            } catch {
                note(error)
                segments[last].end = max(state.end, state.tail + bytes.count)
            }
            // A full disk may take the same bytes later; on any other failure this stretch of the file is not trusted again.
            if !error.isFull, state.tail > SegmentHeader.bytes { hasActive = false }
            throw .io(error)
        }
        writeFailure = nil
        segments[last].tail += bytes.count
        segments[last].end = max(segments[last].end, segments[last].tail)
    }

    private mutating func openSegment() throws(StoreError) {
        guard try isHere() else { throw stale() }
        let id = nextID
        nextID += 1
        let path = directory + "/" + Self.fileName(id)
        let header = SegmentHeader(id: id, salt: salt(), created: clock.wallSeconds(), run: run)
        let buffer = RecordBuffer(bytes: SegmentHeader.bytes)
        header.write(to: buffer.memory)
        do throws(DeviceError) {
            let file = try device.open(path, create: true)
            let segment = Segment(id: id, path: path, salt: header.salt, run: run, file: file, device: device)
            do throws(DeviceError) {
                try device.writeAll(file, path, UnsafeRawBufferPointer(buffer.memory), at: 0)
                try device.syncDirectory(directory)
            } catch {
                do { try device.unlink(path) } catch { setAside.append((path, SegmentHeader.bytes)) }
                throw error
            }
            let bytes = SegmentHeader.bytes
            segments.append(SegmentState(segment: segment, tail: bytes, end: bytes, synced: 0, isInherited: false))
            hasActive = true
            activeIndex = SegmentIndex()
        } catch {
            note(error)
            writeFailure = error
            throw .io(error)
        }
    }

    /// Begins or ends a run of segments with the pages most worth keeping first; a segment is of one kind.
    mutating func setRun(_ isRun: Bool) {
        guard isRun != (run != 0) else { return }
        try? sealActive()
        run = isRun ? nextID : 0
    }

    /// The segment that is worth least: the oldest or, where that is of a run, the last of that run that is complete.
    var leastWorth: Int {
        let run = segments[0].segment.run
        guard run != 0 else { return 0 }
        let count = segments.prefix { $0.segment.run == run }.count
        return max(0, count - (hasActive && count == segments.count ? 2 : 1))
    }

    /// Syncs the active segment, marks it complete and lets the next append open a new one.
    mutating func sealActive() throws(StoreError) {
        guard hasActive else { return }
        try sync(segments.count - 1)
        leaveCutSegment()
        guard hasActive else { return }
        let state = segments[segments.count - 1]
        let closing = activeIndex.closing(segment: state.segment.id, salt: state.segment.salt, at: state.tail)
        // Without its seal a segment is merely read in full at the next start.
        do throws(StoreError) {
            let result = closing.withUnsafeBytes { bytes in Result { () throws(StoreError) in try write(bytes) } }
            try result.get()
        } catch {}
        segments[segments.count - 1].synced = segments[segments.count - 1].tail
        hasActive = false
    }

    /// Makes everything written so far durable, except in segments whose sync failed before.
    mutating func sync() throws(StoreError) {
        var failure: StoreError?
        for index in segments.indices where !segments[index].failed && segments[index].synced < segments[index].tail {
            do { try sync(index) } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
        unsyncedSmall.removeAll()
    }

    /// Lets later processes know by the files' names what this one could not read. A removal that it did not see there may
    /// be of a page that it is about to answer for, and must not count when the device delivers it again.
    mutating func markUnread() throws(StoreError) {
        guard !unread.isEmpty else { return }
        guard try isHere() else { throw stale() }
        do throws(DeviceError) {
            for index in unread.indices where !unread[index].hasSuffix(Self.unreadSuffix) {
                let (path, marked) = (unread[index], unread[index] + Self.unreadSuffix)
                do throws(DeviceError) { try device.rename(path, to: marked) } catch {
                    if !error.isGone { throw error }
                }
                unread[index] = marked
                for segment in segments.indices where segments[segment].path == path { segments[segment].path = marked }
                for file in setAside.indices where setAside[file].path == path { setAside[file].path = marked }
            }
            try device.syncDirectory(directory)
        } catch {
            note(error)
            syncFailure = error
            throw .io(error)
        }
        syncFailure = nil
        unread.removeAll()
    }

    /// Syncs one segment; on failure it is abandoned for good.
    private mutating func sync(_ index: Int) throws(StoreError) {
        let state = segments[index]
        guard state.synced < state.tail else { return }
        do {
            try device.fdatasync(state.segment.file, state.segment.path)
        } catch {
            note(error)
            syncFailure = error
            syncFailures += 1
            segments[index].failed = true
            newlyFailed.append(segments[index])
            if index == segments.count - 1 { hasActive = false }
            throw .io(error)
        }
        syncFailure = nil
        segments[index].synced = state.tail
    }

    /// Whether no sync of the segment has failed.
    func isSound(_ segment: Segment) -> Bool { segments.contains { $0.segment === segment && !$0.failed } }

    /// Removes a segment's file and forgets the segment; readers that have it open are not disturbed.
    mutating func removeSegment(_ id: UInt64) throws(StoreError) {
        guard let index = segments.firstIndex(where: { $0.segment.id == id }) else { return }
        guard try isHere() else { throw stale() }
        do throws(DeviceError) { try device.unlink(segments[index].path) } catch {
            // Another thread was faster.
            if !error.isGone {
                note(error)
                writeFailure = error
                throw .io(error)
            }
        }
        if index == segments.count - 1 { hasActive = false }
        unread.removeAll { $0 == segments[index].path }
        segments.remove(at: index)
        // Keeps removals in order on disk: a tombstone must not vanish before the record it covers.
        do { try device.syncDirectory(directory) } catch { note(error) }
    }

    /// Removes the files that were set aside; returns whether any went.
    mutating func removeSetAside() -> Bool {
        guard !setAside.isEmpty, (try? isHere()) == true else { return false }
        let before = setAside.count
        var kept: [(path: String, bytes: Int)] = []
        for file in setAside {
            do throws(DeviceError) { try device.unlink(file.path) } catch {
                if !error.isGone {
                    note(error)
                    kept.append(file)
                    continue
                }
            }
            unread.removeAll { $0 == file.path }
        }
        setAside = kept
        return kept.count < before
    }

    mutating func note(_ error: DeviceError) { ioErrors += 1 }

    /// Why the log does not work; nil when it does.
    var failure: DeviceError? { syncFailure ?? writeFailure }

    static func fileName(_ id: UInt64) -> String {
        let digits = String(id, radix: 16)
        return "segment-" + String(repeating: "0", count: 16 - digits.count) + digits + ".log"
    }

    /// The end of the name of a segment that a process could not read in full.
    static let unreadSuffix = ".unread"
    /// What earlier versions renamed a segment to whose sync had failed.
    private static let unsyncedSuffix = ".unsynced"

    /// The id in a segment's file name; nil for other files.
    static func segmentID(_ name: String) -> UInt64? {
        var name = name
        for suffix in [unreadSuffix, unsyncedSuffix] where name.hasSuffix(suffix) { name.removeLast(suffix.count) }
        guard name.count == 28, name.hasPrefix("segment-"), name.hasSuffix(".log") else { return nil }
        return UInt64(name.dropFirst(8).dropLast(4), radix: 16)
    }
}
