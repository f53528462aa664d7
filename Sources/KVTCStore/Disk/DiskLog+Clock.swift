// What time it is, written down for the next process.
extension DiskLog {
    private static let (clockName, newClockName) = ("clock", "clock.new")

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
