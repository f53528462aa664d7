import KVTCCodec
import KVTCProtocol
import KVTCSystem
import Logging
import StoreSimulation
import TestSupport

@testable import KVTCDaemon
@testable import KVTCStore

/// One run of sessions of two tenants on a real engine, whose disk, memory, clock and coders are simulated from one seed.
/// Sessions push, change their policies, look up, drop, flush and close or lose their connection while pages wait for their
/// coders; calls to the disk fail; the process is killed or the power cut.
///
/// The promises: a page that was acknowledged and not dropped comes back, and rows that sessions protected without a break,
/// live ones or by then closed ones, come back bit by bit; after a power cut this is true of what a flush covered. Nothing
/// stays in the ledger when all sessions are over.
struct SessionSimulation {
    struct Broken: Error, CustomStringConvertible { var description: String }

    private struct PageID: Hashable {
        var tenant: UInt32
        var conversation: Int
        var index: Int

        var key: PageKey { Pages.key(UInt64(conversation * 100 + index)) }
        var bytes: [UInt8] {
            Pages.random(
                tokens: SessionSimulation.tokens, seed: UInt64(tenant) * 10000 + UInt64(conversation * 100 + index))
        }
    }

    private struct LiveSession {
        var id: UInt32
        var caller: Caller
        var conversation: Int
        var policy: WirePolicy
        var tokens = 0

        func protects(_ position: Int) -> Bool {
            policy.mode == .lossless || position < Int(policy.sink) || position >= tokens - Int(policy.window)
                || policy.protected.contains { Int($0.begin) <= position && position < Int($0.end) }
        }
    }

    private struct Known {
        /// Acknowledged by this process, or found by it, and not dropped.
        var isThere = false
        var isFlushed = false
        /// Rows that were protected without a break since the page was pushed.
        var exact = [Bool](repeating: false, count: SessionSimulation.tokens)
        /// Rows that sessions which are over protected at their end.
        var retained = [Bool](repeating: false, count: SessionSimulation.tokens)
        /// Those of them that stay so when the process is killed: it had time to note that.
        var lasting = [Bool](repeating: false, count: SessionSimulation.tokens)
        var users: Set<UInt32> = []
    }

    private static let tokens = 16
    private static let pages = 6
    private let isSmall: Bool
    private var failuresAtOpen = 0
    /// Faults but for crashes.
    private var failures: Int { plan.total - (plan.counts["crash"] ?? 0) }
    private var generator: SeededGenerator
    private let plan: FaultPlan
    private let clock = TestClock()
    private var device = MemoryDevice()
    private var keeper = TestKeeper()
    private var engine: Engine
    private var faultsAtStart = 0
    private var sessions: [LiveSession] = []
    private var known: [PageID: Known] = [:]
    private var connections: UInt64 = 1
    private var report = Simulation.Report()

    /// Runs a seed.
    static func run(seed: UInt64, steps: Int = 120) -> Simulation.Report {
        do {
            var simulation = try SessionSimulation(seed: seed)
            do {
                for _ in 0..<steps { try simulation.step() }
                try simulation.end()
            } catch { simulation.report.failure = "\(error)" }
            simulation.report.faults = simulation.plan.counts
            simulation.plan.detach()
            return simulation.report
        } catch {
            return Simulation.Report(failure: "the first start: \(error)")
        }
    }

    private init(seed: UInt64) throws {
        generator = SeededGenerator(seed: seed)
        isSmall = seed % 3 == 0
        plan = FaultPlan(seed: seed, isLying: false, nil)
        engine = try Self.open(device, keeper, clock, isSmall, plan)
    }

    private static func open(
        _ device: MemoryDevice, _ keeper: TestKeeper, _ clock: TestClock, _ isSmall: Bool, _ plan: FaultPlan
    ) throws -> Engine {
        plan.attach(device, keeper)
        var tiers = StoreConfiguration.memory(
            device, ram: isSmall ? 24 << 10 : 1 << 20, disk: 4 << 20, segment: 16 << 10, clock: clock)
        tiers.arenaBytes = isSmall ? 8 << 10 : 256 << 10
        tiers.ramStep = { plan.step() }
        var log = Logger(label: "simulation") { _ in KeyValueLog(level: .critical, isJournal: false) }
        log.logLevel = .critical
        return Engine(
            configuration: DaemonConfiguration(environment: [:], isRoot: true),
            store: try Store.open(tiers.kept(by: keeper)), pool: WorkPool(), readers: WorkPool(),
            profiles: ProfileRegistry(directory: nil) { (_) throws(CodecError) in throw .unsupported("none") },
            log: log)
    }

    // MARK: - Steps

    private mutating func step() throws {
        report.steps += 1
        if Int.random(in: 0..<10, using: &generator) == 0 { plan.change() }
        if Int.random(in: 0..<25, using: &generator) == 0 { plan.crashSoon() }
        switch Int.random(in: 0..<20, using: &generator) {
        case 0, 1: try openSession()
        case 2...7: try push()
        case 8, 9: for _ in 0..<Int.random(in: 1...4, using: &generator) where engine.pool.runNext() {}
        case 10: try setPolicy()
        case 11: try drop()
        case 12: try flush()
        case 13: try close()
        case 14: clock.advance(seconds: 1)
        case 15: lookup()
        default: try pull(randomPage())
        }
        if plan.hasCrashed { try restart(isKill: Bool.random(using: &generator)) }
    }

    private mutating func randomPage() -> PageID {
        PageID(
            tenant: .random(in: 1...2, using: &generator), conversation: .random(in: 0..<3, using: &generator),
            index: .random(in: 0..<Self.pages, using: &generator))
    }

    private mutating func randomPolicy() -> WirePolicy {
        let begin = UInt32.random(in: 0..<90, using: &generator)
        return WirePolicy(
            sink: [0, 3, 20].randomElement(using: &generator)!,
            window: [0, 20, 40, 1000].randomElement(using: &generator)!,
            mode: [.lossless, .quant8, .quant4].randomElement(using: &generator)!,
            protected: Bool.random(using: &generator) ? [] : [PositionRange(begin: begin, end: begin + 5)])
    }

    private mutating func openSession() throws {
        connections += 1
        let caller = Caller(
            tenant: .random(in: 1...2, using: &generator), connection: connections, isAdministrator: false)
        let policy = randomPolicy()
        let reply = try engine.openSession(Pages.request(policy: policy), caller)
        sessions.append(
            LiveSession(
                id: reply.session, caller: caller, conversation: .random(in: 0..<3, using: &generator), policy: policy))
    }

    private mutating func push() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return try openSession() }
        var session = sessions[at]
        // Mostly the next page of the stream, now and then one that was there before.
        let next = session.tokens / Self.tokens
        let index = Int.random(in: 0..<6, using: &generator) == 0 ? Int.random(in: 0...next, using: &generator) : next
        guard index < Self.pages else { return }
        let page = PageID(tenant: session.caller.tenant, conversation: session.conversation, index: index)
        // A full store waits for its coders, which nobody runs meanwhile.
        if isSmall { drain() }
        let (bytes, first) = (page.bytes, index * Self.tokens)
        let entry = PushEntry(
            key: page.key, firstPosition: UInt32(first), tokens: UInt32(Self.tokens), offset: 0,
            length: UInt64(bytes.count))
        let outcome: PushOutcome
        do {
            let request = PushRequest(session: session.id, arena: Wire.none, entries: [entry], inline: bytes[...])
            outcome = try engine.push(request, arena: nil, session.caller).outcomes[0]
        } catch {
            return try require(
                error.code == .positionConflict && first < session.tokens, "a push was refused: \(error)")
        }
        guard !plan.hasCrashed else { return }
        guard outcome == .stored || outcome == .present else {
            return try require(outcome == .full && plan.total > faultsAtStart, "a push came to \(outcome)")
        }
        session.tokens = max(session.tokens, first + Self.tokens)
        sessions[at] = session
        var state = known[page] ?? Known()
        if outcome == .stored {
            try require(!state.isThere || plan.total > faultsAtStart, "\(page) was stored although it is there")
            state = Known(isThere: true)
            state.exact = [Bool](repeating: true, count: Self.tokens)
        }
        state.isThere = true
        state.users.insert(session.id)
        known[page] = state
        narrow()
    }

    private mutating func setPolicy() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let policy = randomPolicy()
        _ = try engine.setPolicy(SetPolicyRequest(session: sessions[at].id, policy: policy), sessions[at].caller)
        sessions[at].policy = policy
        narrow()
    }

    private mutating func drop() throws {
        guard let session = sessions.randomElement(using: &generator) else { return }
        let indices = (0..<Self.pages).filter { _ in Int.random(in: 0..<3, using: &generator) == 0 }
        let pages = indices.map { PageID(tenant: session.caller.tenant, conversation: session.conversation, index: $0) }
        guard !pages.isEmpty else { return }
        _ = try engine.drop(DropRequest(session: session.id, keys: pages.map(\.key)), session.caller)
        var touched: Set<UInt32> = []
        for page in pages { touched.formUnion(known.removeValue(forKey: page)?.users ?? []) }
        for at in sessions.indices where touched.contains(sessions[at].id) {
            let left = known.filter { $0.value.users.contains(sessions[at].id) }.keys.map(\.index).max()
            sessions[at].tokens = left.map { ($0 + 1) * Self.tokens } ?? 0
        }
        for page in pages where !plan.hasCrashed {
            let key = StoreKey(tenant: page.tenant, words: page.key.vector)
            try require(engine.store.residence(key) == .absent, "\(page) is there after a drop")
        }
        narrow()
    }

    private mutating func flush() throws {
        guard let session = sessions.randomElement(using: &generator) else { return }
        drain()
        let isAll = Bool.random(using: &generator)
        do { _ = try engine.flush(FlushRequest(session: isAll ? Wire.none : session.id), session.caller) } catch {
            return try require(plan.total > faultsAtStart, "a flush failed without a reason: \(error)")
        }
        guard !plan.hasCrashed else { return }
        for (page, state) in known where page.tenant == session.caller.tenant && state.isThere {
            if isAll || state.users.contains(session.id) { known[page]!.isFlushed = true }
        }
    }

    private mutating func close() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let session = sessions.remove(at: at)
        let faults = plan.total
        if Bool.random(using: &generator) {
            engine.connectionEnded(session.caller.connection)
        } else {
            _ = try engine.closeSession(CloseSessionRequest(session: session.id), session.caller)
        }
        for page in known.keys where known[page]!.users.remove(session.id) != nil {
            for row in 0..<Self.tokens where session.protects(page.index * Self.tokens + row) {
                known[page]!.retained[row] = true
                if plan.total == faults, !plan.hasCrashed { known[page]!.lasting[row] = true }
            }
        }
        narrow()
    }

    private mutating func lookup() {
        guard let session = sessions.randomElement(using: &generator) else { return }
        let keys = (0..<Self.pages).map {
            PageID(tenant: session.caller.tenant, conversation: session.conversation, index: $0).key
        }
        // Leases end with their connection.
        _ = try? engine.lookup(LookupRequest(session: session.id, leaseMs: 5000, keys: keys), session.caller)
    }

    /// Runs every job that waits for a coder.
    private func drain() { while engine.pool.runNext() {} }

    /// Takes the rows back that nobody protects now: the page may be coded from here on.
    private mutating func narrow() {
        for (page, state) in known {
            let users = sessions.filter { state.users.contains($0.id) }
            for row in 0..<Self.tokens where state.exact[row] && !state.retained[row] {
                let position = page.index * Self.tokens + row
                if !users.contains(where: { $0.protects(position) }) { known[page]!.exact[row] = false }
            }
        }
    }

    // MARK: - Checks

    private func require(_ isRight: Bool, _ what: @autoclosure () -> String) throws {
        if !isRight { throw Broken(description: what()) }
    }

    private mutating func pull(_ page: PageID) throws {
        connections += 1
        let caller = Caller(tenant: page.tenant, connection: connections, isAdministrator: false)
        let reader = try engine.openSession(Pages.request(policy: WirePolicy(mode: .lossless)), caller).session
        let failures = plan.total
        let request = PullRequest(
            session: reader, arena: Wire.none, entries: [PullEntry(key: page.key, offset: 0, capacity: 1 << 20)])
        var back: [UInt8]?
        var outcome = PullOutcome.hit
        _ = try engine.pull(request, arena: nil, caller) { (ready: ReadyPart) throws(Never) in
            outcome = ready.part.outcome
            if outcome == .hit { ready.bytes.withBytes { back = Array($0) } }
        }
        engine.connectionEnded(connections)
        guard let back else {
            let isExcused = plan.total > failures || known[page]?.isThere != true
            return try require(outcome == .miss && isExcused, "\(page) is a \(outcome)")
        }
        let (bytes, exact) = (page.bytes, known[page]?.exact)
        try require(back.count == bytes.count, "\(page) has \(back.count) bytes")
        for row in 0..<Self.tokens {
            let (before, after) = (Pages.row(bytes, row), Pages.row(back, row))
            try require(exact?[row] != true || before == after, "row \(row) of \(page) is protected and not exact")
            try require(Pages.areNear(before, after), "row \(row) of \(page) has other values")
        }
    }

    private mutating func end() throws {
        plan.stop()
        if plan.hasCrashed { try restart(isKill: true) }
        for page in known.keys { try pull(page) }
        while !sessions.isEmpty { try close() }
        for connection in 0...connections { engine.connectionEnded(connection) }
        drain()
        let left = engine.ledger.withLock { ($0.sessions.count, $0.pages.count) }
        try require(left == (0, 0), "\(left.0) sessions and \(left.1) pages are left in the ledger")
        try require(engine.pendingEncodes == 0 && engine.leases.withLock { $0.isEmpty }, "jobs or leases are left")
        try restart(isKill: true)
        for page in known.keys { try pull(page) }
    }

    // MARK: - Restarts

    private mutating func restart(isKill: Bool) throws {
        report.restarts += 1
        var (found, memory) = plan.takeCrash() ?? (device.copy(), keeper.contents)
        if !isKill { (found, memory) = (found.afterPowerCut(seed: generator.next()), []) }
        // Jobs that wait hold the engine that is over, and with it the descriptors of its arenas.
        plan.pause()
        drain()
        plan.resume()
        sessions = []
        for attempt in 0... {
            (keeper, device) = (TestKeeper(memory), found.copy())
            if attempt == 3 { plan.rest() }
            faultsAtStart = plan.total
            let opened = Result { try Self.open(device, keeper, clock, isSmall, plan) }
            if let crash = plan.takeCrash() {
                found = crash.0
                if isKill { memory = crash.1 }
                continue
            }
            if case .success(let engine) = opened, plan.total == faultsAtStart {
                self.engine = engine
                break
            }
            (found, memory) = (device.copy(), isKill ? keeper.contents : [])
            try require(attempt < 10, "the store does not open: \(opened)")
        }
        // What had moved to a disk that failed is as that disk knows it.
        let lasts = !isSmall || failures == failuresAtOpen
        failuresAtOpen = failures
        // Sessions died with the process, and what they protected with them; not what those did that were over.
        for (page, state) in known {
            known[page] = Known(isThere: state.isThere && (isKill || state.isFlushed), isFlushed: state.isFlushed)
            guard isKill else { continue }
            let lasting = state.lasting.map { $0 && lasts }
            known[page]!.lasting = lasting
            known[page]!.retained = lasting
            known[page]!.exact = zip(state.exact, lasting).map { $0 && $1 }
        }
    }
}
