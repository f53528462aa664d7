// Which files go, and how.
extension DiskLog {
    /// The segment that is worth least: the oldest or, where that is of a run, the last of that run that is complete.
    var leastWorth: Int {
        let run = segments[0].segment.run
        guard run != 0 else { return 0 }
        let count = segments.prefix { $0.segment.run == run }.count
        return max(0, count - (hasActive && count == segments.count ? 2 : 1))
    }

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
}
