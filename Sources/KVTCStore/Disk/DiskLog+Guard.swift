/// What became of a segment's file under the process that has it open.
enum SegmentLoss: Sendable {
    /// Its name is gone or leads to another file.
    case vanished(UInt64)
    /// It ends here.
    case cut(Segment, end: Int)

    /// The number of the segment.
    var segment: UInt64 {
        switch self {
        case .vanished(let id): id
        case .cut(let segment, _): segment.id
        }
    }
}

// The directory may change under the process: files are removed, replaced or cut, the whole of it is moved away. What is lost is
// lost, but nothing else is.
extension DiskLog {
    private static let (clockName, newClockName) = ("clock", "clock.new")

    /// Whether the directory still is the one that this process works in.
    mutating func isHere() throws(StoreError) -> Bool {
        do throws(DeviceError) { return try lock?.isHere ?? false } catch {
            note(error)
            throw .io(error)
        }
    }

    /// That another directory is where this process's was, in which another one may be at work.
    mutating func stale() -> StoreError {
        let error = DeviceError(operation: "open", path: directory, code: DeviceError.stale)
        writeFailure = error
        return .io(error)
    }

    /// Gives up what is no longer in the directory, which is locked again where the lock was removed. What is lost is noted
    /// in ``losses``, also where a later look fails.
    mutating func findLosses() throws(StoreError) {
        try lockAgain()
        do throws(DeviceError) {
            for index in segments.indices.reversed() {
                let state = segments[index]
                let isThere = try device.isNamed(state.segment.file, state.path)
                let size = try device.size(state.segment.file, state.path)
                guard !isThere || size < min(state.tail, state.end) else { continue }
                if index == segments.count - 1 { hasActive = false }
                if isThere, size >= SegmentHeader.bytes {
                    // Nothing is written behind a cut, and the rest of it is as durable as it was.
                    segments[index].tail = size
                    segments[index].end = size
                    segments[index].synced = min(state.synced, size)
                    losses.append(.cut(state.segment, end: size))
                } else {
                    segments.remove(at: index)
                    unread.removeAll { $0 == state.path }
                    if isThere { setAside.append((state.path, size)) }
                    losses.append(.vanished(state.segment.id))
                }
            }
        } catch {
            note(error)
            throw .io(error)
        }
    }

    private mutating func lockAgain() throws(StoreError) {
        guard try isHere() else { throw stale() }
        do throws(DeviceError) {
            if let lock, try lock.isWhole { return }
            // First let go, or this process would be in its own way.
            lock = nil
            lock = try DirectoryLock(directory, device)
        } catch {
            note(error)
            writeFailure = error
            hasActive = false
            if error.code == DeviceError.wouldBlock { throw .locked(directory) }
            throw .io(error)
        }
    }

    /// Writes down what time it is, for the next process to go on from. As that takes what a new segment takes, a file and room for
    /// it, it also shows whether the disk takes anything.
    /// - Parameter synced: wait until it is durable, which shows whether a sync works.
    mutating func writeMark(synced: Bool = false) throws(StoreError) {
        guard try isHere() else { throw stale() }
        let mark = timeline.mark
        let buffer = RecordBuffer(bytes: TimeMark.bytes)
        mark.write(to: buffer.memory)
        do throws(DeviceError) {
            try replaceMark(UnsafeRawBufferPointer(buffer.memory), synced: synced)
        } catch {
            note(error)
            writeFailure = error
            throw .io(error)
        }
        writeFailure = nil
        if synced { syncFailure = nil }
        self.mark = mark
    }

    private mutating func replaceMark(_ bytes: UnsafeRawBufferPointer, synced: Bool) throws(DeviceError) {
        let new = directory + "/" + Self.newClockName
        if markFiles.contains(Self.newClockName) {
            do throws(DeviceError) { try device.unlink(new) } catch { if !error.isGone { throw error } }
        }
        let file = try device.open(new, create: true)
        markFiles.insert(Self.newClockName)
        do throws(DeviceError) {
            defer { device.close(file) }
            try device.writeAll(file, new, bytes, at: 0)
            if synced { try device.fdatasync(file, new) }
        } catch {
            if (try? device.unlink(new)) != nil { markFiles.remove(Self.newClockName) }
            throw error
        }
        try device.rename(new, to: directory + "/" + Self.clockName)
        markFiles = [Self.clockName]
    }

    /// Notes what an earlier process left of its marks.
    mutating func findMark(_ names: [String]) {
        markFiles = Set(names).intersection([Self.clockName, Self.newClockName])
        let path = directory + "/" + Self.clockName
        guard markFiles.contains(Self.clockName), let file = try? device.open(path, create: false) else { return }
        defer { device.close(file) }
        let buffer = RecordBuffer(bytes: TimeMark.bytes)
        guard let count = try? device.readAll(file, path, buffer.memory, at: 0) else { return }
        mark = TimeMark.parse(UnsafeRawBufferPointer(rebasing: buffer.memory[..<count]))
    }
}
