import KVTCCodec
import KVTCModel
import KVTCProtocol
import KVTCSessions
import KVTCSystem
import Logging
import StoreSimulation
import TestSupport
import Testing

@testable import KVTCDaemon
@testable import KVTCStore

/// A disk that takes its time keeps those waiting who need it, and nobody else.
@Suite struct SlowDiskTests {
    private struct Gate {
        var isReached = false
        var isOpen = false
        var wasLate = false
    }

    private let device = MemoryDevice()
    private let gate = Monitor(Gate())
    private let caller = Caller(tenant: 1, connection: 1, isAdministrator: false, peer: nil)

    private func engine() throws -> Engine {
        let store = try Store.open(.memory(device, ram: 1 << 20, disk: 4 << 20, segment: 64 << 10))
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        configuration.code = .atOnce
        return Engine(
            configuration: configuration, store: store, pool: WorkPool(),
            readers: WorkPool(),
            profiles: ProfileRegistry(directory: nil) { (_) throws(CodecError) in throw .unsupported("none") },
            log: Logger(label: "test") { _ in KeyValueLog(level: .critical) }, ledger: Ledger())
    }

    private func deadline() -> UInt64 { MonotonicClock.nanoseconds + 20_000_000_000 }

    @Test(arguments: [false, true]) func aDropThatIsWrittenDownStopsNoOtherRequest(isWhole: Bool) throws {
        let engine = try engine()
        let session = try engine.openSession(Pages.request(policy: Policy(mode: .lossless)), caller).session
        let page = Pages.random(tokens: 16, seed: 1)
        let entry = PushEntry(
            key: Pages.key(1), firstPosition: 0, tokens: 16, offset: 0, length: UInt64(page.count))
        let push = PushRequest(session: session, arena: Wire.none, entries: [entry], inline: page[...])
        #expect(try engine.push(push, arena: nil, caller).outcomes == [.stored])
        _ = try engine.store.flush()
        device.setFault { [gate, self] _, operation in
            guard operation == "pwrite" else { return nil }
            gate.update { $0.isReached = true }
            if gate.wait(until: deadline(), { $0.isOpen ? true : nil }) == nil { gate.update { $0.wasLate = true } }
            return nil
        }
        let dropped = Monitor<UInt32?>(nil)
        try Thread.start { [caller] in
            let request = DropRequest(session: session, keys: isWhole ? [] : [Pages.key(1)])
            let reply = try? engine.drop(request, caller)
            dropped.update { $0 = reply?.dropped ?? 0 }
        }.detach()
        #expect(gate.wait(until: deadline(), { $0.isReached ? true : nil }) != nil)
        #expect(engine.store.statistics.pages == 0)
        _ = try engine.getPolicy(GetPolicyRequest(session: session), caller)
        gate.update { $0.isOpen = true }
        #expect(dropped.wait(until: deadline(), { $0 }) == 1)
        #expect(gate.withLock { !$0.wasLate })
        device.setFault { _, _ in nil }
        let again = try Store.open(.memory(device.afterKill(), ram: 1 << 20, disk: 4 << 20, segment: 64 << 10))
        #expect(again.statistics.pages == 0)
    }

    /// A writer of another page takes what is due to be written down along, and has yet to do so.
    @Test func aDropWaitsForWhoWritesItDown() throws {
        let store = try engine().store
        let (gone, other) = (
            StoreKey(tenant: 1, words: .init(1, 0, 0, 0)), StoreKey(tenant: 1, words: .init(2, 0, 0, 0))
        )
        func put(_ key: StoreKey) {
            let bytes = [UInt8](repeating: 7, count: 900)
            #expect(bytes.withUnsafeBytes { store.put(key, bytes: $0, attributes: PageAttributes()) } == .stored)
        }
        put(gone)
        _ = try store.flush()
        put(other)
        #expect(store.takeOut([gone]) == 1)
        let (noted, writes) = (Monitor<Int?>(nil), Monitor(0))
        let begun = Monitor(false)
        device.setFault { [self] _, operation in
            guard operation == "pwrite" else { return nil }
            // The first write is the tombstone, the second one the other page.
            guard
                writes.update({
                    $0 += 1; return $0
                }) == 1
            else { return nil }
            try? Thread.start {
                begun.update { $0 = true }
                store.noteRemovals()
                let count = writes.withLock { $0 }
                noted.update { $0 = count }
            }.detach()
            _ = begun.wait(until: deadline(), { $0 ? true : nil })
            return nil
        }
        _ = try store.flush([other])
        let count = noted.wait(until: deadline(), { $0 })
        #expect(count ?? 0 > 1)
        device.setFault { _, _ in nil }
    }
}
