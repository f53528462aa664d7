/// The segment files, oldest first, the last one taking appends. Knows bytes and records, not pages.
struct DiskLog: Sendable {
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
    var activeIndex = SegmentIndex()
    /// See ``SegmentHeader/run``; 0 outside of one.
    private var run: UInt64 = 0
    var nextID: UInt64 = 1
    /// Files that were set aside or could not be removed; they count against the budget and go first.
    var setAside: [(path: String, bytes: Int)] = []
    /// Why the last write failed, or could not get its room.
    var writeFailure: DeviceError?
    var syncFailure: DeviceError?
    var syncFailures = 0
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

    /// Appends a record in one write, if it ``fits(_:reserve:makesRoom:)``. Nil when the payload no longer matches its checksum:
    /// nothing is written then.
    mutating func append(
        _ header: RecordHeader, payload: UnsafeRawBufferPointer = .init(start: nil, count: 0), reserve: Bool = false,
        makesRoom: Bool = false
    ) throws(StoreError) -> DiskLocation? {
        let bytes = header.recordBytes
        guard fits(bytes, reserve: reserve, makesRoom: makesRoom) else { throw .diskFull }
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
    mutating func leaveCutSegment() {
        guard hasActive, let state = segments.last else { return }
        let size = try? device.size(state.segment.file, state.segment.path)
        if size ?? 0 < state.tail { hasActive = false }
    }

    /// Writes at the tail of the last segment.
    mutating func write(_ bytes: UnsafeRawBufferPointer) throws(StoreError) {
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
        let path = directory + "/" + SegmentName.of(id)
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

    mutating func note(_ error: DeviceError) { ioErrors += 1 }

    /// Why the log does not work; nil when it does.
    var failure: DeviceError? { syncFailure ?? writeFailure }
}
