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

/// What EXPLAIN says of pages, and to whom.
@Suite struct ExplainTests {
    private let caller = Caller(tenant: 1, connection: 1, isAdministrator: false, peer: nil)
    private let stranger = Caller(tenant: 2, connection: 2, isAdministrator: false, peer: nil)
    private let administrator = Caller(tenant: 0, connection: 3, isAdministrator: true, peer: nil)
    private let pool = WorkPool()

    private func engine() throws -> Engine {
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        (configuration.code, configuration.ramBudget) = (.underPressure, 1 << 20)
        var tiers = StoreConfiguration.memory(MemoryDevice(), ram: 1 << 20, disk: 1 << 20, segment: 64 << 10)
        tiers.directory = nil
        return Engine(
            configuration: configuration, store: try Store.open(tiers), pool: pool, readers: WorkPool(),
            profiles: ProfileRegistry(directory: nil) { (_) throws(CodecError) in throw .unsupported("none") },
            log: Logger(label: "test") { _ in KeyValueLog(level: .critical) }, ledger: Ledger())
    }

    private func open(_ engine: Engine, _ policy: Policy) throws -> UInt32 {
        try engine.openSession(Pages.request(policy: policy), caller).session
    }

    private func explain(
        _ engine: Engine, _ session: UInt32 = Wire.none, first: UInt32 = 0, _ keys: [PageKey] = [], by caller: Caller
    ) throws -> ExplainReport {
        try engine.explain(ExplainRequest(session: session, first: first, keys: keys), caller).decoded()
    }

    @Test func aSessionsPagesAreToldInOrderWithTheirReasons() throws {
        let engine = try engine()
        let session = try open(engine, Policy(sink: 8, window: 32, mode: .quant4, pin: false))
        try Pages.push(engine, session, 0..<6, caller)
        let report = try explain(engine, session, by: caller)
        #expect(report.session?.id == session && report.session?.pages == 6 && report.next == nil)
        #expect(report.pages.map(\.key) == (0..<6).map { "\(Pages.key(UInt64($0)))" })
        #expect(report.pages.map(\.first) == (0..<6).map { $0 * 16 })
        #expect(
            report.pages.map(\.reasons) == [[.pressure, .sink]] + .init(repeating: [.pressure], count: 3)
                + .init(repeating: [.window], count: 2))
        #expect(report.pages.allSatisfy { $0.place == "ram" && $0.mode == "raw" && $0.sessions == [session] })
        // Of a conversation the end leaves first.
        #expect(report.pages.map(\.pagesBefore) == (0..<6).reversed().map { $0 })
        #expect(try explain(engine, session, first: 4, by: caller).pages.map(\.first) == [64, 80])
        #expect(try explain(engine, session, first: 99, by: caller).pages.isEmpty)
    }

    @Test func aPageThatIsCodedSaysHowAndWhatStayedExact() throws {
        let engine = try engine()
        let session = try open(engine, Policy(sink: 8, window: 0, mode: .quant4, pin: true, code: .atOnce))
        try Pages.push(engine, session, 0..<2, caller)
        while pool.runNext() {}
        let pages = try explain(engine, session, by: caller).pages
        #expect(pages.map(\.mode) == ["quant4", "quant4"] && pages.map(\.exactTokens) == [8, 0])
        #expect(pages.map(\.reasons) == [[.coded, .sink, .pinned], [.coded, .pinned]])
        #expect(pages.allSatisfy { $0.bytes < $0.rawBytes && $0.form == "coded" })
        let lossless = try open(engine, Policy(sink: 0, window: 0, mode: .lossless, code: .atOnce))
        let judged = try explain(engine, lossless, [Pages.key(0)], by: caller).pages
        #expect(judged.map { $0.reasons.last } == [.promise])
    }

    @Test func aForeignPageLooksAsOneThatIsNotThere() throws {
        let engine = try engine()
        let session = try open(engine, Policy(window: 0, mode: .quant4))
        try Pages.push(engine, session, 0..<1, caller)
        let known = Pages.key(0)
        let unknown = Pages.key(99)
        for one in [caller, stranger] {
            var rows = try explain(engine, Wire.none, [unknown], by: one).pages
            #expect(rows.count == 1 && rows[0].place == "absent" && rows[0].bytes == 0 && rows[0].reasons.isEmpty)
            guard one.tenant == stranger.tenant else { continue }
            let foreign = try explain(engine, Wire.none, [known], by: one).pages
            rows[0].key = "\(known)"
            #expect(JSONReply(foreign).json == JSONReply(rows).json)
        }
        // Not even a tenant with the very same model.
        _ = try engine.openSession(Pages.request(policy: Policy(mode: .lossless)), stranger)
        #expect(try explain(engine, Wire.none, [known], by: stranger).pages.map(\.place) == ["absent"])
        #expect(try explain(engine, Wire.none, [known], by: caller).pages.map(\.tenant) == [1])
        #expect(try explain(engine, Wire.none, [known], by: administrator).pages.map(\.place) == ["ram"])
        for number in [session, 99] {
            let error = #expect(throws: WireError.self) { try explain(engine, number, by: stranger) }
            #expect(error?.code == .unknownSession && error?.message == "no session \(number)")
        }
        #expect(try explain(engine, session, by: administrator).pages.count == 1)
    }

    @Test func askingIsNoUseAndIsBounded() throws {
        let engine = try engine()
        let session = try open(engine, Policy(window: 0, mode: .quant4))
        try Pages.push(engine, session, 0..<2, caller)
        let before = engine.ledger.withLock { $0.sessions[session]?.lastUse }
        _ = try explain(engine, session, by: caller)
        #expect(engine.ledger.withLock { $0.sessions[session]?.lastUse } == before)
        let many = (0..<1025).map { Pages.key(UInt64($0)) }
        let error = #expect(throws: WireError.self) { try explain(engine, Wire.none, many, by: caller) }
        #expect(error?.code == .limitExceeded && error?.field == "keys")
        let neither = #expect(throws: WireError.self) { try explain(engine, Wire.none, by: caller) }
        #expect(neither?.code == .invalidField && neither?.field == "session")
    }
}
