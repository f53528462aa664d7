import KVTCStore
import Synchronization

/// A disk in memory for pages of zeros: of what is written it keeps the beginning, up to the last byte that is none.
final class ZeroDevice: StorageDevice {
    fileprivate struct File {
        var size = 0
        /// Where each write begins, ascending, with its bytes.
        var writes: [(offset: Int, bytes: [UInt8])] = []
    }

    private struct State {
        var names: [String: Int32] = [:]
        var files: [Int32: File] = [:]
        var next: Int32 = 3
    }

    private let state = Mutex(State())
    private static let notFound: Int32 = 2

    func makeDirectory(_ path: String) {}

    func list(_ path: String) -> [String] {
        state.withLock {
            $0.names.keys.filter { $0.hasPrefix(path + "/") }.map { String($0.dropFirst(path.count + 1)) }
        }
    }

    func open(_ path: String, create: Bool) throws(DeviceError) -> Int32 {
        let file = state.withLock { state -> Int32? in
            guard create else { return state.names[path] }
            defer { state.next += 1 }
            state.names[path] = state.next
            state.files[state.next] = File()
            return state.next
        }
        guard let file else { throw DeviceError(operation: "open", path: path, code: Self.notFound) }
        return file
    }

    func lock(_ path: String) -> Int32 { 0 }
    func lockDirectory(_ path: String) -> Int32 { 0 }
    func isNamed(_ file: Int32, _ path: String) -> Bool { true }
    // A file that has no name any more is not read again: the store's segments are the only ones that have it.
    func close(_ file: Int32) {}

    func size(_ file: Int32, _ path: String) -> Int { state.withLock { $0.files[file]?.size ?? 0 } }

    func pread(_ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        // Mutex hands its state on; the buffer is the caller's alone.
        nonisolated(unsafe) let buffer = buffer
        return state.withLock { $0.files[file]?.read(into: buffer, at: offset) ?? 0 }
    }

    func pwrite(_ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int {
        let end = bytes.lastIndex { $0 != 0 } ?? -1
        let kept = Array(bytes[...end])
        let count = bytes.count
        state.withLock { $0.files[file]?.write(kept, of: count, at: offset) }
        return count
    }

    func truncate(_ file: Int32, _ path: String, to size: Int) {
        state.withLock { state in
            state.files[file]?.size = size
            state.files[file]?.writes.removeAll { $0.offset >= size }
        }
    }

    func fdatasync(_ file: Int32, _ path: String) {}
    func syncDirectory(_ path: String) {}

    func rename(_ path: String, to other: String) {
        state.withLock { $0.names[other] = $0.names.removeValue(forKey: path) }
    }

    func unlink(_ path: String) {
        state.withLock { state in
            if let file = state.names.removeValue(forKey: path) { state.files[file] = nil }
        }
    }
}

extension ZeroDevice.File {
    fileprivate mutating func write(_ bytes: [UInt8], of count: Int, at offset: Int) {
        size = max(size, offset + count)
        // The log appends; only its marks of time are written again.
        if let last = writes.last, last.offset >= offset { writes.removeAll { $0.offset >= offset } }
        writes.append((offset, bytes))
    }

    fileprivate func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        let count = max(0, min(buffer.count, size - offset))
        for index in 0..<count { buffer[index] = 0 }
        var (low, high) = (0, writes.count)
        while low < high {
            let middle = (low + high) / 2
            if writes[middle].offset + writes[middle].bytes.count > offset { high = middle } else { low = middle + 1 }
        }
        for (begin, bytes) in writes[low...] {
            guard begin < offset + count else { break }
            let range = max(begin, offset)..<min(begin + bytes.count, offset + count)
            for at in range { buffer[at - offset] = bytes[at - begin] }
        }
        return count
    }
}
