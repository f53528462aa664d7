import Glibc

/// What an arena holds, as found by a process that did not write it.
package struct RAMDirectory: Sendable {
    package private(set) var records: [RAMRecord] = []
    /// Slots that are neither free nor valid.
    package private(set) var damaged = 0
    /// Slots from the first on that have ever been used.
    package private(set) var usedSlots = 0
    let header: RAMHeader
    /// How the clocks stood when the arena was made; nil in one of an earlier version.
    let mark: TimeMark?

    /// Reads the directory of an arena given as bytes.
    package static func scan(_ bytes: UnsafeRawBufferPointer) throws(RAMDirectoryError) -> RAMDirectory {
        try RAMDirectory(fileBytes: bytes.count) { (target, offset) throws(RAMDirectoryError) in
            guard offset <= bytes.count, target.count <= bytes.count - offset else { throw .truncated }
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + target.count]))
        }
    }

    /// Reads a directory through `read`, which fills a private buffer from an offset of the file: nothing is judged in
    /// shared memory.
    init(
        fileBytes: Int, read: (UnsafeMutableRawBufferPointer, Int) throws(RAMDirectoryError) -> Void
    ) throws(RAMDirectoryError) {
        guard fileBytes >= RAMHeader.bytes else { throw .truncated }
        let start = RecordBuffer(bytes: RAMHeader.bytes)
        try read(start.memory, 0)
        header = try RAMHeader.parse(UnsafeRawBufferPointer(start.memory), fileBytes: fileBytes)
        mark = TimeMark.parse(UnsafeRawBufferPointer(rebasing: start.memory[RAMHeader.markOffset...]))
        let slotsAtOnce = 8192
        let buffer = RecordBuffer(bytes: min(slotsAtOnce, header.slots) * RAMSlot.bytes)
        for first in stride(from: 0, to: header.slots, by: slotsAtOnce) {
            let count = min(slotsAtOnce, header.slots - first)
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<(count * RAMSlot.bytes)])
            try read(part, RAMHeader.bytes + first * RAMSlot.bytes)
            for index in first..<first + count {
                let begin = (index - first) * RAMSlot.bytes
                let slot = UnsafeRawBufferPointer(rebasing: part[begin..<begin + RAMSlot.bytes])
                switch RAMSlot.parse(slot, index: index, salt: header.salt, dataBytes: header.dataBytes) {
                case .record(let record): records.append(record)
                case .damaged: damaged += 1
                case .free: break
                case .unused: return
                }
                usedSlots = index + 1
            }
        }
    }
}
