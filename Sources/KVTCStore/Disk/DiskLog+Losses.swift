// The directory may change under the process: files are removed, replaced or cut, the whole of it is moved away. What is lost is
// lost, but nothing else is.
extension DiskLog {
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
}
