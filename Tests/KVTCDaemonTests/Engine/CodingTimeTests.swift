import KVTCClient
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

/// When pages are coded: at once, when RAM runs short, or when there is nothing else to do.
@Suite struct CodingTimeTests {
    private let caller = Caller(tenant: 1, connection: 1, isAdministrator: false, peer: nil)
    private let pool = WorkPool()

    /// An engine in whose RAM 25 pages have room, raw ones, and whose coders work when the test says so.
    private func engine(
        code: CodingTime = .underPressure, ram: Int = 64 << 10, disk: Int = 0, coders: WorkPool? = nil,
        pushPatience: UInt64 = .max >> 1,
        _ change: (inout DaemonConfiguration) -> Void = { _ in }
    ) throws -> Engine {
        var configuration = DaemonConfiguration(environment: [:], isRoot: true)
        (configuration.code, configuration.ramBudget) = (code, ram)
        change(&configuration)
        var tiers = StoreConfiguration.memory(MemoryDevice(), ram: ram, disk: max(disk, 1 << 20), segment: 16 << 10)
        if disk == 0 { tiers.directory = nil }
        tiers.ramPerTenant = configuration.limits.ramPerUser
        return Engine(
            configuration: configuration, store: try Store.open(tiers), pool: pool, coders: coders,
            readers: WorkPool(),
            profiles: ProfileRegistry(directory: nil) { (_) throws(CodecError) in throw .unsupported("none") },
            log: Logger(label: "test") { _ in KeyValueLog(level: .critical) }, ledger: Ledger(),
            pushPatience: pushPatience)
    }

    private func open(_ engine: Engine, _ code: CodingTime? = nil) throws -> UInt32 {
        let policy = Policy(sink: 0, window: 0, mode: .quant4, code: code)
        return try engine.openSession(Pages.request(policy: policy), caller).session
    }

    private func residence(_ engine: Engine, _ session: UInt32, _ pages: Range<Int>) throws -> [KVTCProtocol.Residence]
    {
        let keys = pages.map { Pages.key(UInt64($0)) }
        return try engine.lookup(LookupRequest(session: session, leaseMs: 0, keys: keys), caller).residence
    }

    @Test func pagesStayAsTheyArePushedUntilRAMRunsShortAndThoseThatWaitLongestAreCodedThen() throws {
        let engine = try engine()
        let session = try open(engine)
        try Pages.push(engine, session, 0..<18, caller)
        #expect(engine.pendingEncodes == 0)
        #expect(try residence(engine, session, 0..<18).allSatisfy { $0 == .raw })
        try Pages.push(engine, session, 18..<22, caller)
        // A few at a time, so that what comes meanwhile counts.
        #expect(engine.pendingEncodes == 2)
        while pool.runNext() {}
        let found = try residence(engine, session, 0..<22)
        let coded = found.count { $0 == .coded }
        #expect(coded > 2 && coded < 10 && found == (0..<22).map { $0 < coded ? .coded : .raw })
        #expect(engine.store.ramUsed <= 64 << 10 / 100 * 70)
        // There is room again; and what was coded once is enough until there is none.
        try Pages.push(engine, session, 22..<23, caller)
        #expect(engine.pendingEncodes == 0)
    }

    @Test func noPageIsDroppedThatCouldBeMadeSmall() throws {
        let engine = try engine()
        let session = try open(engine)
        // Two blocks have room where a page was: more than 40 would be lost to what is left between them.
        try Pages.push(engine, session, 0..<32, caller)
        let statistics = engine.store.statistics
        #expect(statistics.dropped == 0 && statistics.pages == 32)
        #expect(try residence(engine, session, 0..<8).allSatisfy { $0 == .coded })
    }

    @Test func noPageGoesToDiskAsItIs() throws {
        let engine = try engine(disk: 4 << 20)
        let session = try open(engine)
        try Pages.push(engine, session, 0..<300, caller)
        let keys = try #require(engine.ledger.withLock { $0.sessions[session]?.pages.map(\.key) })
        let onDisk = keys.filter { engine.store.residence($0) == .disk }
        #expect(keys.count == 300 && onDisk.count > 100)
        #expect(onDisk.allSatisfy { engine.store.attributes($0)?.coded == true })
    }

    /// A coder that does not get on costs a push its patience and the oldest pages, and no more.
    @Test func aPushGoesOnWithoutCoders() throws {
        let isOpen = Monitor(false)
        let coders = try WorkPool(threads: 1)
        defer {
            isOpen.update { $0 = true }
            coders.stop()
        }
        coders.submit(.background) { _ = isOpen.wait { $0 ? true : nil } }
        let engine = try engine(coders: coders, pushPatience: 1_000_000)
        let session = try open(engine)
        let bytes = (0..<60).flatMap { Pages.random(tokens: 16, seed: UInt64($0)) }
        let length = bytes.count / 60
        let entries = (0..<60).map { page in
            PushEntry(
                key: Pages.key(UInt64(page)), firstPosition: UInt32(page * 16), tokens: 16,
                offset: UInt64(page * length), length: UInt64(length))
        }
        let request = PushRequest(session: session, arena: Wire.none, entries: entries, inline: bytes[...])
        #expect(try engine.push(request, arena: nil, caller).outcomes.allSatisfy { $0 == .stored })
        #expect(
            try residence(engine, session, 0..<10).allSatisfy { $0 == .raw },
            "the beginning of a conversation stays longest")
        #expect(engine.store.statistics.dropped > 30)
    }

    @Test func aUsersOwnShareOfRAMRunsShortByItself() throws {
        let engine = try engine(ram: 1 << 20) { $0.limits.ramPerUser = 64 << 10 }
        let session = try open(engine)
        try Pages.push(engine, session, 0..<45, caller)
        #expect(engine.store.statistics.dropped == 0 && engine.store.statistics.pages == 45)
        #expect(try residence(engine, session, 0..<25).allSatisfy { $0 == .coded })
    }

    @Test func idlePagesAreCodedWhenThereIsNothingElseToDo() throws {
        let engine = try engine()
        let session = try open(engine, .idle)
        try Pages.push(engine, session, 0..<4, caller)
        let waiting = try open(engine)
        try Pages.push(engine, waiting, 4..<6, caller)
        engine.codeWhileIdle { 0 }
        #expect(engine.pendingEncodes == 0, "there was a request a moment ago")
        engine.codeWhileIdle { .max }
        #expect(engine.pendingEncodes == 1, "one for each coder")
        while pool.runNext() {}
        #expect(try residence(engine, session, 0..<6) == [.coded, .coded, .coded, .coded, .raw, .raw])
    }

    @Test func codersStopWhenSomebodyAsks() throws {
        let engine = try engine()
        let session = try open(engine, .idle)
        try Pages.push(engine, session, 0..<4, caller)
        let now = Monitor(UInt64.max)
        engine.codeWhileIdle { now.withLock { $0 } }
        now.update { $0 = 0 }
        while pool.runNext() {}
        #expect(try residence(engine, session, 0..<4) == [.coded, .raw, .raw, .raw])
    }

    @Test func aSessionsPolicyGoesBeforeTheConfiguration() throws {
        let engine = try engine(code: .atOnce)
        let patient = try open(engine, .underPressure)
        try Pages.push(engine, patient, 0..<1, caller)
        #expect(engine.pendingEncodes == 0)
        try Pages.push(engine, try open(engine), 1..<2, caller)
        #expect(engine.pendingEncodes == 1)
        var policy = try engine.getPolicy(GetPolicyRequest(session: patient), caller).policy
        #expect(policy.code == .underPressure)
        policy.code = nil
        _ = try engine.setPolicy(SetPolicyRequest(session: patient, policy: policy), caller)
        #expect(engine.pendingEncodes == 2)
        while pool.runNext() {}
    }

    /// Pages of sessions that are over leave nothing behind where the store lets them go while they wait.
    @Test func pagesThatAreGoneNoLongerWait() throws {
        let engine = try engine()
        let session = try open(engine)
        try Pages.push(engine, session, 0..<2, caller)
        _ = try engine.closeSession(CloseSessionRequest(session: session), caller)
        let keys = engine.ledger.withLock { $0.unusedWaiting }
        #expect(keys.count == 2)
        engine.store.remove(keys[0])
        engine.forgetGoneWaiting()
        #expect(engine.ledger.withLock { $0.unusedWaiting } == [keys[1]])
    }

    @Test func aMarkIsLeftWellBelowWhereItWasReached() {
        var shortage = Shortage()
        let used = [79, 81, 75, 71, 70, 75, 80, 81].map { shortage.isShort(nil, used: $0, budget: 100, above: 80) }
        #expect(used == [false, true, true, true, false, false, false, true])
        let isOther = shortage.isShort(7, used: 75, budget: 100, above: 80)
        #expect(!isOther, "another budget is another matter")
    }

    // MARK: - With a socket

    private func report(_ client: Client) throws -> StatusReport { try client.call(StatusRequest()).decoded() }

    @Test func whatIsFlushedIsCodedBefore() throws {
        let daemon = try TestDaemon { $0.code = .underPressure }
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(sink: 0, window: 16, mode: .quant4))
        let flow = PageFlowTests()
        let pages = try flow.push(session, 0..<4)
        #expect(try Pages.pull(client, session.number, flow.keys(0..<4), capacity: 1 << 20) == pages)
        let request = LookupRequest(session: session.number, leaseMs: 0, keys: flow.keys(0..<4))
        #expect(try client.call(request).residence == [.raw, .raw, .raw, .raw])
        #expect(try report(client).pages.waiting == 3)
        #expect(try client.call(FlushRequest(session: session.number)).pages == 4)
        #expect(try client.call(request).residence == [.coded, .coded, .coded, .raw])
        #expect(try report(client).pages.waiting == 0)
    }

    @Test func aStopHasCodedWhatItWrites() throws {
        let directory = try TemporaryDirectory()
        let daemon = try TestDaemon(directory: directory) { $0.code = .idle }
        let flow = PageFlowTests()
        let session = try Pages.open(try daemon.client(), policy: Policy(sink: 0, window: 0, mode: .quant4))
        _ = try flow.push(session, 0..<3)
        daemon.stop()
        let next = try TestDaemon(directory: directory)
        defer { next.stop() }
        #expect(next.server.engine.store.statistics.codedPages == 3)
    }

    @Test func earlierClientsReadPoliciesThatTheyKnow() throws {
        let daemon = try TestDaemon()
        defer { daemon.stop() }
        let client = try daemon.client()
        let session = try Pages.open(client, policy: Policy(mode: .lossless, code: .idle))
        for (features, code) in [(15, nil), (31, .idle)] as [(UInt32, CodingTime?)] {
            let raw = try daemon.raw()
            try raw.send(HelloRequest(features: features, client: "earlier"))
            #expect(try raw.error() == nil)
            try raw.send(GetPolicyRequest(session: session.number))
            #expect(try GetPolicyReply(body: raw.reply().body).policy.code == code)
        }
    }
}
