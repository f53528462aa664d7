// What makes records durable. A sync that has failed is never repeated.
extension DiskLog {
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
            for index in unread.indices where !unread[index].hasSuffix(SegmentName.unreadSuffix) {
                let (path, marked) = (unread[index], unread[index] + SegmentName.unreadSuffix)
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
}
