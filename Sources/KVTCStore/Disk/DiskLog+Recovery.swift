/// What opening a directory found: the log; its records have been handed out in the order they were written.
struct RecoveredLog: Sendable {
    var log: DiskLog
    /// Damaged stretches that were skipped.
    var skipped = 0
    /// Segments set aside.
    var corruptSegments = 0
    /// Whether the device failed to read some of the segments.
    var missesRecords = false
    /// Bytes of segments that are not part of the log yet.
    fileprivate var unread = 0
}

extension DiskLog {
    /// Opens or makes the directory. Never refuses to start because of damage: what cannot be read is set aside.
    /// Throws when the directory is locked, was written by a newer version, or cannot be used at all; nothing has been handed
    /// out then.
    static func open(
        _ configuration: StoreConfiguration, directory: String, _ timeline: Timeline,
        _ replay: (Segment, [SegmentRecord]) -> Void
    ) throws(StoreError) -> RecoveredLog {
        let device = configuration.device
        let lock: DirectoryLock
        var names: [String]
        do throws(DeviceError) {
            try device.makeDirectory(directory)
            lock = try DirectoryLock(directory, device)
            names = try device.list(directory)
        } catch {
            if error.operation == "flock", error.code == DeviceError.wouldBlock { throw .locked(directory) }
            throw .io(error)
        }
        names.sort()
        var result = RecoveredLog(log: DiskLog(configuration, directory: directory, lock: lock, timeline))
        result.log.findMark(names)
        // All headers first: a directory of a newer version is left exactly as it is.
        var found: [(id: UInt64, path: String, file: OpenFile?, header: SegmentHeader.Parsed)] = []
        for name in names {
            if let id = SegmentName.id(name) {
                let path = directory + "/" + name
                guard let (file, header) = try result.log.readHeader(path) else { continue }
                if case .newer(let version) = header {
                    throw .newerFormat(path: path, found: version, supported: SegmentHeader.version)
                }
                found.append((id, path, file, header))
            } else if let id = SegmentName.setAsideID(name) {
                result.log.noteSetAside(directory + "/" + name, id)
            }
        }
        result.unread = found.reduce(0) { $0 + ($1.file?.size ?? 0) }
        for (id, path, file, header) in found {
            result.log.nextID = max(result.log.nextID, id &+ 1)
            result.unread -= file?.size ?? 0
            if let file, case .valid(let header) = header, header.id == id {
                let segment = Segment(
                    id: id, path: path, salt: header.salt, run: header.run, file: file.take(), device: device)
                result.add(segment, size: file.size, replay)
            } else if let file, file.size < SegmentHeader.bytes {
                // The start of a segment that never got its header; nothing can be in it.
                result.remove(path, size: file.size)
            } else if let file {
                result.setAside(path, bytes: file.size)
            } else {
                // What the device does not deliver now is perhaps good: it stays for the next start, unless its room is needed.
                // Its size is not known.
                result.log.setAside.append((path, result.log.segmentBytes))
                result.log.unread.append(path)
                result.missesRecords = true
            }
        }
        return result
    }

    /// An open file until it is taken over; closed otherwise.
    private final class OpenFile {
        private var file: Int32?
        let size: Int
        private let device: any StorageDevice

        init(file: Int32, size: Int, device: any StorageDevice) {
            self.file = file
            self.size = size
            self.device = device
        }

        func take() -> Int32 {
            defer { file = nil }
            return file!
        }

        deinit { if let file { device.close(file) } }
    }

    /// Opens a segment and reads its header. No file when the device fails on just this one; nil when it has gone meanwhile.
    private mutating func readHeader(_ path: String) throws(StoreError) -> (OpenFile?, SegmentHeader.Parsed)? {
        do throws(DeviceError) {
            let file = try device.open(path, create: false)
            let opened: OpenFile
            do throws(DeviceError) {
                opened = OpenFile(file: file, size: try device.size(file, path), device: device)
            } catch {
                device.close(file)
                throw error
            }
            let buffer = RecordBuffer(bytes: SegmentHeader.bytes)
            let count = try device.readAll(file, path, buffer.memory, at: 0)
            return (opened, SegmentHeader.parse(UnsafeRawBufferPointer(rebasing: buffer.memory[..<count])))
        } catch {
            if error.isGone { return nil }
            ioErrors += 1
            // Too many open files and the like concern every segment: better not to start than to set all aside.
            if error.isShortage { throw .io(error) }
            return (nil, .bad)
        }
    }

    /// Counts a file set aside by an earlier start.
    private mutating func noteSetAside(_ path: String, _ id: UInt64) {
        nextID = max(nextID, id &+ 1)
        var bytes: Int?
        if let file = try? device.open(path, create: false) {
            bytes = try? device.size(file, path)
            device.close(file)
        }
        setAside.append((path, bytes ?? segmentBytes))
    }
}

extension RecoveredLog {
    /// Reads a segment, cuts what is torn, and appends it to the log.
    fileprivate mutating func add(
        _ segment: Segment, size: Int, _ replay: (Segment, [SegmentRecord]) -> Void
    ) {
        var scanner = SegmentScanner(segment: segment, size: size)
        scanner.scan()
        log.ioErrors += scanner.readErrors
        let unreadable = scanner.readErrors > 0
        if scanner.records.isEmpty, !unreadable {
            setAsideOrRemove(segment, size: size, torn: scanner.sawHeader)
            return
        }
        skipped += scanner.skipped + (scanner.isTorn ? 1 : 0)
        var state = SegmentState(
            segment: segment, tail: scanner.tail, end: size, synced: scanner.tail, isInherited: true)
        if unreadable {
            // None of it is known to be durable; the next flush writes what counts elsewhere.
            state.synced = SegmentHeader.bytes
            state.failed = true
            log.newlyFailed.append(state)
            missesRecords = true
        } else if !scanner.sealed {
            log.finish(&state, scanner.records, intact: scanner.skipped == 0, unread)
        }
        // Of one that has its new name it is unknown whether that is durable.
        if unreadable || segment.isUnread { log.unread.append(segment.path) }
        if state.failed {
            // Removals and attributes that may be lost, or not count for later processes, are due again.
            let small = scanner.records.filter { $0.header.kind == .attributes || !segment.isUnread }
            log.unsyncedSmall += small.compactMap { SmallRecord($0.header, in: segment, at: $0.offset) }
        }
        replay(segment, scanner.records)
        log.segments.append(state)
    }

    /// Disposes of a segment without any record. With nothing but its header, or a first record that was torn, there is
    /// nothing to keep; anything else is damage worth a look.
    private mutating func setAsideOrRemove(_ segment: Segment, size: Int, torn: Bool) {
        guard torn || size < SegmentHeader.bytes + RecordHeader.bytes else {
            return setAside(segment.path, bytes: size)
        }
        if torn { skipped += 1 }
        remove(segment.path, size: size)
    }

    fileprivate mutating func remove(_ path: String, size: Int) {
        do { try log.device.unlink(path) } catch {
            log.ioErrors += 1
            log.setAside.append((path, size))
        }
    }

    /// Renames a file that cannot be read, so that it is out of the way and can be looked at.
    fileprivate mutating func setAside(_ path: String, bytes: Int) {
        corruptSegments += 1
        let other = path + SegmentName.corruptSuffix
        do {
            try log.device.rename(path, to: other)
            log.setAside.append((other, bytes))
        } catch {
            log.ioErrors += 1
            log.setAside.append((path, bytes))
        }
    }
}

extension DiskLog {
    /// Cuts the torn tail of a segment that was not sealed, makes the rest durable and seals it if all of it is intact:
    /// behind a seal a record with a good header and bad payload would override an older, good one.
    fileprivate mutating func finish(
        _ state: inout SegmentState, _ records: [SegmentRecord], intact: Bool, _ unread: Int
    ) {
        let segment = state.segment
        var intact = intact
        do throws(DeviceError) {
            if state.tail < state.end {
                try device.truncate(segment.file, segment.path, to: state.tail)
                state.end = state.tail
            }
            // The process before may have met a failing sync: then what is cached counts as written although it is not, and no
            // sync would write it.
            for record in [nil] + records where try !rewrite(record, in: segment) { intact = false }
            try device.fdatasync(segment.file, segment.path)
        } catch {
            ioErrors += 1
            state.synced = SegmentHeader.bytes
            state.failed = true
            newlyFailed.append(state)
            return
        }
        var index = SegmentIndex()
        for record in records {
            intact = intact && record.header.payloadBytes <= SegmentIndex.maxPayloadBytes
            index.append(record.header, at: record.offset)
        }
        let closing = index.closing(segment: segment.id, salt: segment.salt, at: state.tail)
        guard intact, used + unread + state.end + closing.count <= budget else { return }
        do throws(DeviceError) {
            let written = closing.withUnsafeBytes { bytes in
                Result { () throws(DeviceError) in
                    try device.writeAll(segment.file, segment.path, bytes, at: state.tail)
                }
            }
            try written.get()
            state.tail += closing.count
            state.synced = state.tail
            state.end = state.tail
        } catch {
            ioErrors += 1
            // Some of it may be there.
            state.end += closing.count
        }
    }

    /// Writes a record (nil: the segment's header) once more as it is; false when it no longer is intact.
    private func rewrite(_ record: SegmentRecord?, in segment: Segment) throws(DeviceError) -> Bool {
        let buffer = RecordBuffer(bytes: record?.header.recordBytes ?? SegmentHeader.bytes)
        let bytes = UnsafeRawBufferPointer(buffer.memory)
        let offset = record?.offset ?? 0
        guard try device.readAll(segment.file, segment.path, buffer.memory, at: offset) == bytes.count else {
            return false
        }
        if let record {
            let payload = UnsafeRawBufferPointer(
                rebasing: bytes[RecordHeader.bytes...].prefix(record.header.payloadBytes))
            guard
                RecordHeader.parse(bytes, segment: segment.id, offset: offset, salt: segment.salt) == record.header,
                payload.isEmpty || checksum(payload) == record.header.payloadHash
            else { return false }
        } else {
            guard case .valid = SegmentHeader.parse(bytes) else { return false }
        }
        try device.writeAll(segment.file, segment.path, bytes, at: offset)
        return true
    }
}
