import KVTCClient
import KVTCDaemon
import KVTCModel
import KVTCProtocol
import KVTCStore
import KVTCSystem
import TestSupport
import Testing

/// What a stop leaves undone when its time is over.
@Suite struct StopTests {
    private let pages = (0..<3).map { Pages.random(tokens: 16, seed: UInt64($0)) }
    private let keys = (0..<3).map { Pages.key(UInt64($0)) }

    private func push(_ daemon: TestDaemon, _ policy: Policy) throws {
        let client = try daemon.client()
        defer { client.close() }
        let session = try Pages.open(client, policy: policy)
        let pages = zip(keys, pages).enumerated().map { index, page in
            ClientPage(key: page.0, firstPosition: UInt32(index * 16), bytes: page.1)
        }
        #expect(try session.push(pages) == [.stored, .stored, .stored])
    }

    @Test func itIsGivenUpWhenNothingGoesOn() throws {
        let device = HangingDevice()
        var limits = StopLimits()
        limits.patience = 0
        let daemon = try TestDaemon(stopLimits: limits, device: device)
        try push(daemon, Policy(mode: .lossless))
        device.hangs.update { $0 = true }
        #expect(!daemon.server.stop())
        device.hangs.update { $0 = false }
    }

    @Test func pagesThatAreNotCodedInTimeAreWrittenAsTheyAre() throws {
        let directory = try TemporaryDirectory()
        var limits = StopLimits()
        limits.coding = 0
        // Nobody codes.
        let daemon = try TestDaemon(directory: directory, pool: WorkPool(), stopLimits: limits)
        try push(daemon, Policy(sink: 0, window: 0, mode: .quant8))
        daemon.stop()
        let next = try TestDaemon(directory: directory)
        defer { next.stop() }
        let client = try next.client()
        let session = try Pages.open(client, policy: Policy(sink: 0, window: 0, mode: .quant8))
        #expect(try Pages.pull(client, session.number, keys, capacity: pages[0].count) == pages)
    }
}

/// A disk whose writes hang while it is told so.
private final class HangingDevice: StorageDevice {
    let hangs = Monitor(false)
    private let disk = LinuxStorageDevice()

    func makeDirectory(_ path: String) throws(DeviceError) { try disk.makeDirectory(path) }
    func list(_ path: String) throws(DeviceError) -> [String] { try disk.list(path) }
    func open(_ path: String, create: Bool) throws(DeviceError) -> Int32 { try disk.open(path, create: create) }
    func lock(_ path: String) throws(DeviceError) -> Int32 { try disk.lock(path) }
    func lockDirectory(_ path: String) throws(DeviceError) -> Int32 { try disk.lockDirectory(path) }
    func isNamed(_ file: Int32, _ path: String) throws(DeviceError) -> Bool { try disk.isNamed(file, path) }
    func close(_ file: Int32) { disk.close(file) }
    func size(_ file: Int32, _ path: String) throws(DeviceError) -> Int { try disk.size(file, path) }
    func pread(
        _ file: Int32, _ path: String, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(DeviceError) -> Int { try disk.pread(file, path, buffer, at: offset) }
    func pwrite(
        _ file: Int32, _ path: String, _ bytes: UnsafeRawBufferPointer, at offset: Int
    ) throws(DeviceError) -> Int {
        _ = hangs.wait { $0 ? nil : true }
        return try disk.pwrite(file, path, bytes, at: offset)
    }
    func truncate(_ file: Int32, _ path: String, to size: Int) throws(DeviceError) {
        try disk.truncate(file, path, to: size)
    }
    func fdatasync(_ file: Int32, _ path: String) throws(DeviceError) { try disk.fdatasync(file, path) }
    func syncDirectory(_ path: String) throws(DeviceError) { try disk.syncDirectory(path) }
    func rename(_ path: String, to other: String) throws(DeviceError) { try disk.rename(path, to: other) }
    func unlink(_ path: String) throws(DeviceError) { try disk.unlink(path) }
}
