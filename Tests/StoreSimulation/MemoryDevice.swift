import Foundation
import KVTCStore
import Synchronization
import TestSupport

/// A disk in memory that can fail at any call and lose power. What was written is lost at a power cut, sector by sector
/// and at random, unless it was synced; a failed sync loses it silently, as Linux does: it can be read on, counts as
/// written and reaches the disk only when it is written again.
package final class MemoryDevice: StorageDevice {
    private final class File {
        var current: [UInt8] = []
        var durable: [UInt8] = []
        /// Byte ranges written since the last sync that a power cut may still save.
        var pending: [Range<Int>] = []

        /// Brings what is pending, and the size, to the disk.
        func sync() {
            if durable.count > current.count { durable.removeLast(durable.count - current.count) }
            durable += [UInt8](repeating: 0, count: current.count - durable.count)
            for range in pending {
                let range = range.clamped(to: 0..<current.count)
                durable.replaceSubrange(range, with: current[range])
            }
            pending.removeAll()
        }
    }

    private struct State {
        var files: [String: File] = [:]
        var durableNames: [String: File] = [:]
        var open: [Int32: (file: File, path: String)] = [:]
        var locks: [String: Int32] = [:]
        var next: Int32 = 3
        var calls = 0
    }

    // The files are classes for sharing between names and handles; all are touched under this lock only.
    private final class Guarded: @unchecked Sendable {
        let lock = NSLock()
        var state = State()
        var fault: (@Sendable (Int, String) -> Fault?) = { _, _ in nil }
    }

    private let guarded = Guarded()

    package init() {}

    /// What is to happen to the next call. Asked for without the lock, so that whoever is asked may look at the device.
    private func nextFault(_ operation: String) -> Fault? {
        let (number, fault) = {
            guarded.lock.lock()
            defer { guarded.lock.unlock() }
            defer { guarded.state.calls += 1 }
            return (guarded.state.calls, guarded.fault)
        }()
        return fault(number, operation)
    }

    /// Runs under the lock, after asking for a fault.
    private func call<T>(_ operation: String, _ path: String, _ body: (inout State, Fault?) throws(DeviceError) -> T)
        throws(DeviceError) -> T
    {
        let fault = nextFault(operation)
        guarded.lock.lock()
        defer { guarded.lock.unlock() }
        if case .error(let code) = fault { throw DeviceError(operation: operation, path: path, code: code) }
        return try body(&guarded.state, fault)
    }

    private func inspect<T>(_ body: (inout State) -> T) -> T {
        guarded.lock.lock()
        defer { guarded.lock.unlock() }
        return body(&guarded.state)
    }

    // MARK: Steering

    /// Asked for every call with its number and name.
    package func setFault(_ fault: @escaping @Sendable (Int, String) -> Fault?) {
        guarded.lock.lock()
        defer { guarded.lock.unlock() }
        guarded.fault = fault
    }

    package var calls: Int { inspect { $0.calls } }
    package var totalBytes: Int { inspect { $0.files.values.reduce(0) { $0 + $1.current.count } } }
    private var allNames: [String] { inspect { $0.files.keys.sorted() } }
    /// All files but those with nothing in them but the time.
    package var names: [String] { allNames.filter { !$0.contains("/clock") } }

    package func contents(_ path: String) -> [UInt8] { inspect { $0.files[path]?.current ?? [] } }

    package func replaceContents(_ path: String, _ bytes: [UInt8]) {
        inspect { state in
            let file = File()
            file.current = bytes
            file.durable = bytes
            state.files[path] = file
            state.durableNames[path] = file
        }
    }

    /// Takes a file away under whoever has it open, or a directory with all files in it, and the locks there.
    package func vanish(_ path: String) {
        inspect { state in
            func isIn(_ name: String) -> Bool { name == path || name.hasPrefix(path + "/") }
            state.files = state.files.filter { !isIn($0.key) }
            state.durableNames = state.durableNames.filter { !isIn($0.key) }
            state.locks = state.locks.filter { !isIn($0.key) }
        }
    }

    /// Cuts a file under whoever has it open.
    package func cut(_ path: String, to size: Int) {
        inspect { state in
            guard let file = state.files[path], file.current.count > size else { return }
            file.current.removeLast(file.current.count - size)
            if file.durable.count > size { file.durable.removeLast(file.durable.count - size) }
            file.pending = file.pending.filter { $0.upperBound <= size }
        }
    }

    /// Flips a bit of a file in place.
    package func flip(_ path: String, at offset: Int) { inspect { $0.files[path]?.current[offset] ^= 0x10 } }

    /// A copy as it would be found after the power was cut now. Of what was not synced a random part is there.
    package func afterPowerCut(seed: UInt64) -> MemoryDevice {
        let device = MemoryDevice()
        inspect { state in
            var generator = SeededGenerator(seed: seed)
            var names = state.durableNames
            for (path, file) in state.files.sorted(by: { $0.key < $1.key })
            where Bool.random(using: &generator) {
                // A renamed file has one of its names.
                names = names.filter { $0.value !== file }
                names[path] = file
            }
            for (path, file) in names.sorted(by: { $0.key < $1.key }) {
                var bytes = file.durable
                for range in file.pending {
                    for sector in stride(from: range.lowerBound / 512 * 512, to: range.upperBound, by: 512)
                    where Bool.random(using: &generator) {
                        let part = max(sector, range.lowerBound)..<min(sector + 512, range.upperBound)
                        let end = min(part.upperBound, file.current.count)
                        guard part.lowerBound < end else { continue }
                        if bytes.count < end { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
                        bytes.replaceSubrange(part.lowerBound..<end, with: file.current[part.lowerBound..<end])
                    }
                }
                device.replaceContents(path, bytes)
            }
        }
        return device
    }

    /// A copy as it is now, with what is durable and what is not; nobody has files of it open.
    package func copy() -> MemoryDevice {
        let device = MemoryDevice()
        inspect { state in
            var copies: [ObjectIdentifier: File] = [:]
            func copy(_ file: File) -> File {
                if let known = copies[ObjectIdentifier(file)] { return known }
                let new = File()
                (new.current, new.durable, new.pending) = (file.current, file.durable, file.pending)
                copies[ObjectIdentifier(file)] = new
                return new
            }
            let (files, durable) = (state.files.mapValues(copy), state.durableNames.mapValues(copy))
            device.inspect { other in
                other.files = files
                other.durableNames = durable
            }
        }
        return device
    }

    /// A copy as another process finds it after this one was killed: everything written, locks gone.
    package func afterKill() -> MemoryDevice {
        let device = MemoryDevice()
        for name in allNames { device.replaceContents(name, contents(name)) }
        return device
    }

    // MARK: StorageDevice

    package func makeDirectory(_ path: String) throws(DeviceError) { try call("mkdir", path) { _, _ in } }

    package func list(_ path: String) throws(DeviceError) -> [String] {
        try call("readdir", path) { state, _ in
            state.files.keys.filter { $0.hasPrefix(path + "/") }.map { String($0.dropFirst(path.count + 1)) }
        }
    }

    package func open(_ path: String, create: Bool) throws(DeviceError) -> Int32 {
        try call("open", path) { (state, _) throws(DeviceError) in
            if create {
                guard state.files[path] == nil else { throw DeviceError(operation: "open", path: path, code: EEXIST) }
                state.files[path] = File()
            }
            guard let file = state.files[path] else {
                throw DeviceError(operation: "open", path: path, code: ENOENT)
            }
            defer { state.next += 1 }
            state.open[state.next] = (file, path)
            return state.next
        }
    }

    package func lock(_ path: String) throws(DeviceError) -> Int32 {
        try call("flock", path) { (state, _) throws(DeviceError) in
            guard state.locks[path] == nil else {
                throw DeviceError(operation: "flock", path: path, code: EWOULDBLOCK)
            }
            defer { state.next += 1 }
            state.locks[path] = state.next
            return state.next
        }
    }

    package func lockDirectory(_ path: String) throws(DeviceError) -> Int32 { try lock(path) }

    package func isNamed(_ file: Int32, _ path: String) throws(DeviceError) -> Bool {
        try call("stat", path) { state, _ in
            guard let open = state.open[file] else { return state.locks[path] == file }
            return state.files[path] === open.file
        }
    }

    package func close(_ file: Int32) {
        inspect { state in
            state.open[file] = nil
            state.locks = state.locks.filter { $0.value != file }
        }
    }

    package func size(_ file: Int32, _ path: String) throws(DeviceError) -> Int {
        try call("fstat", path) { state, _ in state.open[file]!.file.current.count }
    }

    package func pread(_ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    {
        try call("pread", path) { state, fault in
            let bytes = state.open[file]!.file.current
            var count = max(0, min(buffer.count, bytes.count - offset))
            if case .short = fault { count = min(count, (count + 1) / 2) }
            if count > 0 { buffer.copyBytes(from: bytes[offset..<offset + count]) }
            if case .flipped(let bit) = fault, count > 0 { buffer[bit / 8 % count] ^= 1 << UInt8(bit % 8) }
            return count
        }
    }

    package func pwrite(_ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int)
        throws(DeviceError) -> Int
    {
        try call("pwrite", path) { (state, fault) throws(DeviceError) in
            let target = state.open[file]!.file
            let count =
                switch fault {
                case .partial, .short: (bytes.count + 1) / 2
                default: bytes.count
                }
            if case .dropped = fault { return count }
            var bytes = Array(bytes)
            if case .flipped(let bit) = fault, count > 0 { bytes[bit / 8 % count] ^= 1 << UInt8(bit % 8) }
            var offset = offset
            if case .misdirected(let distance) = fault { offset = max(0, offset + distance) }
            let end = offset + count
            if target.current.count < end {
                target.current += [UInt8](repeating: 0, count: end - target.current.count)
            }
            target.current.replaceSubrange(offset..<end, with: bytes[..<count])
            target.pending.append(offset..<end)
            switch fault {
            case .partial(let code), .landed(let code):
                throw DeviceError(operation: "pwrite", path: path, code: code)
            default: return count
            }
        }
    }

    package func truncate(_ file: Int32, _ path: String, to size: Int) throws(DeviceError) {
        try call("ftruncate", path) { state, _ in
            let target = state.open[file]!.file
            if target.current.count > size { target.current.removeLast(target.current.count - size) }
        }
    }

    package func fdatasync(_ file: Int32, _ path: String) throws(DeviceError) {
        let fault = nextFault("fdatasync")
        guarded.lock.lock()
        defer { guarded.lock.unlock() }
        let target = guarded.state.open[file]!.file
        if case .error(let code) = fault {
            target.pending.removeAll()
            throw DeviceError(operation: "fdatasync", path: path, code: code)
        }
        target.sync()
    }

    package func syncDirectory(_ path: String) throws(DeviceError) {
        try call("fsync", path) { state, _ in state.durableNames = state.files }
    }

    package func rename(_ path: String, to other: String) throws(DeviceError) {
        try call("rename", path) { (state, _) throws(DeviceError) in
            guard let file = state.files.removeValue(forKey: path) else {
                throw DeviceError(operation: "rename", path: path, code: ENOENT)
            }
            state.files[other] = file
        }
    }

    package func unlink(_ path: String) throws(DeviceError) {
        try call("unlink", path) { (state, _) throws(DeviceError) in
            guard state.files.removeValue(forKey: path) != nil else {
                throw DeviceError(operation: "unlink", path: path, code: ENOENT)
            }
        }
    }
}
