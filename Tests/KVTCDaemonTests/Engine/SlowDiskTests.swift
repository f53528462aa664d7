import KVTCCodec
import KVTCModel
import KVTCProtocol
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
        return Engine(
            configuration: DaemonConfiguration(environment: [:], isRoot: true), store: store, pool: WorkPool(),
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
}
