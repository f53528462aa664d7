import KVTCSystem
import Synchronization

/// Whether a device answers. Takes no lock, so that it can always be asked.
final class DeviceWatch: Sendable {
    private let open = Atomic(0)
    private let last = Atomic<UInt64>(0)

    /// Since when there has been no answer to any of the calls that go on; nil while none does.
    var silentSince: UInt64? {
        open.load(ordering: .acquiring) > 0 ? last.load(ordering: .acquiring) : nil
    }

    /// A call. One that fails is an answer, too.
    func during<Value, Failure: Error>(_ call: () throws(Failure) -> Value) throws(Failure) -> Value {
        // Before it counts: who sees it must not see how long ago the one before was.
        if open.load(ordering: .acquiring) == 0 { last.store(MonotonicClock.nanoseconds, ordering: .releasing) }
        open.add(1, ordering: .acquiringAndReleasing)
        defer {
            last.store(MonotonicClock.nanoseconds, ordering: .releasing)
            open.subtract(1, ordering: .acquiringAndReleasing)
        }
        return try call()
    }
}

/// A device whose calls are watched: all that may wait for it.
struct WatchedDevice: StorageDevice {
    let device: any StorageDevice
    let watch: DeviceWatch

    func makeDirectory(_ path: String) throws(DeviceError) {
        try watch.during { () throws(DeviceError) in try device.makeDirectory(path) }
    }

    func list(_ path: String) throws(DeviceError) -> [String] {
        try watch.during { () throws(DeviceError) in try device.list(path) }
    }

    func open(_ path: String, create: Bool) throws(DeviceError) -> Int32 {
        try watch.during { () throws(DeviceError) in try device.open(path, create: create) }
    }

    func lock(_ path: String) throws(DeviceError) -> Int32 {
        try watch.during { () throws(DeviceError) in try device.lock(path) }
    }

    func lockDirectory(_ path: String) throws(DeviceError) -> Int32 {
        try watch.during { () throws(DeviceError) in try device.lockDirectory(path) }
    }

    func isNamed(_ file: Int32, _ path: String) throws(DeviceError) -> Bool {
        try watch.during { () throws(DeviceError) in try device.isNamed(file, path) }
    }

    func close(_ file: Int32) { watch.during { device.close(file) } }

    func size(_ file: Int32, _ path: String) throws(DeviceError) -> Int {
        try watch.during { () throws(DeviceError) in try device.size(file, path) }
    }

    func pread(
        _ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(DeviceError) -> Int {
        try watch.during { () throws(DeviceError) in try device.pread(file, path, buffer, at: offset) }
    }

    func pwrite(
        _ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int
    ) throws(DeviceError) -> Int {
        try watch.during { () throws(DeviceError) in try device.pwrite(file, path, bytes, at: offset) }
    }

    func truncate(_ file: Int32, _ path: String, to size: Int) throws(DeviceError) {
        try watch.during { () throws(DeviceError) in try device.truncate(file, path, to: size) }
    }

    func fdatasync(_ file: Int32, _ path: String) throws(DeviceError) {
        try watch.during { () throws(DeviceError) in try device.fdatasync(file, path) }
    }

    func syncDirectory(_ path: String) throws(DeviceError) {
        try watch.during { () throws(DeviceError) in try device.syncDirectory(path) }
    }

    func rename(_ path: String, to other: String) throws(DeviceError) {
        try watch.during { () throws(DeviceError) in try device.rename(path, to: other) }
    }

    func unlink(_ path: String) throws(DeviceError) {
        try watch.during { () throws(DeviceError) in try device.unlink(path) }
    }
}
