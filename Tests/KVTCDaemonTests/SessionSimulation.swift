import KVTCCodec
import KVTCProtocol
import KVTCSystem
import Logging
import StoreSimulation
import TestSupport

@testable import KVTCDaemon
@testable import KVTCStore

/// One run of sessions of two tenants on a real engine, whose disk, memory, clock and coders are simulated from one seed.
/// Sessions push, go back and go on differently, change their policies, look up, drop, flush and close or lose their connection
/// while pages wait for their coders; pages expire, get lost or hold NaN; calls to the disk fail; the process is killed or the
/// power cut.
///
/// The promises: a page that was acknowledged and neither dropped nor lost comes back; rows that sessions protected without a
/// break, live ones or by then closed ones, come back bit by bit, and so do all that a push finds protected, whatever was there;
/// after a power cut this is true of what a flush covered. No session is given a lossy row that its policy keeps exact at that
/// position. No push is refused, and the engine's list of a session's pages is the model's. Nothing stays in the ledger when all
/// sessions are over.
struct SessionSimulation {
    struct Broken: Error, CustomStringConvertible { var description: String }

    static let tokens = 16
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
    /// Pages that were pushed with NaN in them some time.
    private var everBad: Set<PageID> = []
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
        let store = try Store.open(tiers.kept(by: keeper))
        // What the device did not let it open is there once it does.
        if !store.isDiskOpen {
            plan.rest()
            store.heal()
        }
        var log = Logger(label: "simulation") { _ in KeyValueLog(level: .critical) }
        log.logLevel = .critical
        return Engine(
            configuration: DaemonConfiguration(environment: [:], isRoot: true),
            store: store, pool: WorkPool(), readers: WorkPool(),
            profiles: ProfileRegistry(directory: nil) { (_) throws(CodecError) in throw .unsupported("none") },
            log: log, ledger: Ledger())
    }

    // MARK: - Steps

    private mutating func step() throws {
        report.steps += 1
        if Int.random(in: 0..<10, using: &generator) == 0 { plan.change() }
        if Int.random(in: 0..<25, using: &generator) == 0 { plan.crashSoon() }
        switch Int.random(in: 0..<24, using: &generator) {
        case 0, 1: try openSession()
        case 2...8: try push()
        case 9, 10:
            for _ in 0..<Int.random(in: 1...4, using: &generator) where engine.pool.runNext() {}
            try follow()
        case 11: try setPolicy()
        case 12: try drop()
        case 13: try truncate()
        case 14: try flush()
        case 15: try close()
        case 16: clock.advance(seconds: 1)
        case 17: lookup()
        case 18: lose()
        case 19, 20: try pullAsItself()
        default: try pull(randomPage())
        }
        if plan.hasCrashed { try restart(isKill: Bool.random(using: &generator)) }
    }

    /// In an order that is the same in every run of a seed.
    private var names: [PageID] { known.keys.sorted { $0.order < $1.order } }

    private mutating func randomPage() -> PageID {
        names.randomElement(using: &generator) ?? PageID(tenant: 1, conversation: 0, index: 0)
    }

    private mutating func randomPolicy() -> WirePolicy {
        let begin = UInt32.random(in: 0..<90, using: &generator)
        return WirePolicy(
            sink: [0, 3, 20].randomElement(using: &generator)!,
            window: [0, 20, 40, 1000].randomElement(using: &generator)!,
            mode: [.lossless, .quant8, .quant4].randomElement(using: &generator)!,
            ttlSeconds: Int.random(in: 0..<6, using: &generator) == 0 ? 2 : 0,
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
                id: reply.session, caller: caller, conversation: .random(in: 0..<2, using: &generator), policy: policy))
    }

    /// The pages of a push: mostly the next ones of the stream; now and then another way for it to go on, with or without the
    /// pages before that, some that were there, or such that leave a gap. A tail may be short, and grows with the next push.
    private mutating func pagesToPush(_ session: inout LiveSession) -> [PageID] {
        let next = session.pages.last.map { $0.isShort ? $0.index : $0.index + 1 } ?? 0
        var (begin, before) = (next, [PageID]())
        switch Int.random(in: 0..<10, using: &generator) {
        case 0, 1:
            begin = .random(in: 0...next, using: &generator)
            session.branch = .random(in: 0..<3, using: &generator)
            if Bool.random(using: &generator) { before = session.pages.filter { $0.end <= begin * Self.tokens } }
        case 2:
            let first = Int.random(in: 0...next, using: &generator)
            return session.pages.filter { $0.index >= first }
        case 3: begin = next + 1
        default: break
        }
        let end = begin + Int.random(in: 1...3, using: &generator)
        var pages = (begin..<max(begin, min(end, Self.pages))).map {
            PageID(
                tenant: session.caller.tenant, conversation: session.conversation, index: $0, branch: session.branch)
        }
        if !pages.isEmpty, Int.random(in: 0..<4, using: &generator) == 0 { pages[pages.count - 1].isShort = true }
        return before + pages
    }

    private mutating func push() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return try openSession() }
        var session = sessions[at]
        let pages = pagesToPush(&session)
        sessions[at] = session
        let areBad = pages.map { _ in Int.random(in: 0..<12, using: &generator) == 0 }
        // A full store waits for its coders, which nobody runs meanwhile.
        if isSmall {
            drain()
            try follow()
        }
        var inline: [UInt8] = []
        let entries = zip(pages, areBad).map { page, isBad in
            let bytes = isBad ? page.badBytes : page.bytes
            defer { inline += bytes }
            return PushEntry(
                key: page.key, firstPosition: UInt32(page.first), tokens: UInt32(page.tokens),
                offset: UInt64(inline.count), length: UInt64(bytes.count))
        }
        let before = plan.total
        let request = PushRequest(session: session.id, arena: Wire.none, entries: entries, inline: inline[...])
        for (page, isBad) in zip(pages, areBad) where isBad { everBad.insert(page) }
        let outcomes = try engine.push(request, arena: nil, session.caller).outcomes
        guard !plan.hasCrashed else {
            for page in pages where session.policy.ttlSeconds != 0 {
                known[page, default: Known(page)].mayExpire = true
            }
            return
        }
        let isDisturbed = plan.total > faultsAtStart
        for (page, (isBad, outcome)) in zip(pages, zip(areBad, outcomes)) {
            guard outcome != .full else {
                try require(isDisturbed, "\(page) finds no room")
                continue
            }
            var state = known[page] ?? Known(page)
            let isExact = !state.exact.contains(false)
            let expected: [PushOutcome] =
                switch (state.isThere, state.isBad, isBad) {
                case (false, _, _), (true, true?, _): [isBad ? .nonFinite : .stored]
                case (true, false?, true): [.present]
                case (true, false?, false): isExact ? [.present] : [.present, .stored]
                case (true, nil, _): [.present, isBad ? .nonFinite : .stored]
                }
            let isOpen = isDisturbed || state.mayExpire || known[page]?.isThere != true
            try require(
                expected.contains(outcome) || isOpen && outcome != .tooLarge,
                "\(page), \(isBad ? "bad" : "good"), came to \(outcome) over \(state)")
            // What is not finite does not take the place of its like.
            let isLike = state.isThere && isBad && state.isBad != false
            if outcome != .present, !isLike {
                let isOver = state.isThere && !state.mayExpire && state.isBad != nil
                let kept = isOver ? (state.retained, state.lasting) : (Known(page).retained, Known(page).lasting)
                let mayExpire = state.mayExpire
                state = Known(page)
                (state.isBad, state.mayExpire) = (isBad, mayExpire)
                (state.retained, state.lasting) = kept
                state.exact = [Bool](repeating: true, count: page.tokens)
            } else if !state.isThere {
                state.isBad = everBad.contains(page) ? nil : false
            }
            state.mayExpire = state.mayExpire || session.policy.ttlSeconds != 0
            state.isThere = true
            known[page] = state
            leave(sessions[at], sessions[at].place(page))
        }
        if outcomes.contains(.full) {
            // What found no room to take the place of a lossy page is in the session, which has that one.
            sessions[at].pages = (sessions[at].pages + pages.filter { !sessions[at].pages.contains($0) }).sorted {
                ($0.first, $0.end) < ($1.first, $1.end)
            }
        }
        try follow(isFree: outcomes.contains(.full))
        // Whatever was there: what is protected now came with this push.
        if plan.total == before {
            let came = zip(pages, zip(areBad, outcomes)).filter { !$0.1.0 && $0.1.1 != .full }.map(\.0)
            for page in came where sessions[at].pages.contains(page) {
                for row in 0..<page.tokens where sessions[at].protects(page.first + row) {
                    known[page]?.exact[row] = true
                }
            }
        }
        narrow()
    }

    private mutating func truncate() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let end = Int.random(in: 0...sessions[at].tokens, using: &generator)
        let request = TruncateRequest(session: sessions[at].id, tokens: UInt32(end))
        let reply = try engine.truncate(request, sessions[at].caller)
        let left = sessions[at].cut(at: end)
        try require(
            reply.tokens == sessions[at].tokens && reply.pages == left.count,
            "cut to \(end): \(reply) instead of \(sessions[at].tokens) and \(left.count)")
        leave(sessions[at], left)
        narrow()
    }

    /// What a session that goes back keeps exact where it was stays so while the process lives.
    private mutating func leave(_ session: LiveSession, _ left: [PageID]) {
        for page in left where known[page]?.isThere == true {
            for row in 0..<page.tokens where session.keeps(page.first + row) && known[page]!.exact[row] {
                known[page]!.retained[row] = true
            }
        }
    }

    private mutating func setPolicy() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let policy = randomPolicy()
        let before = plan.total
        let reply = try engine.setPolicy(
            SetPolicyRequest(session: sessions[at].id, policy: policy), sessions[at].caller)
        if policy.ttlSeconds != sessions[at].policy.ttlSeconds {
            for page in sessions[at].pages { known[page]?.mayExpire = true }
        }
        sessions[at].policy = policy
        narrow()
        guard plan.total == before, !plan.hasCrashed else { return }
        // What it protects is exact or named.
        for page in sessions[at].pages {
            for row in 0..<page.tokens where sessions[at].protects(page.first + row) {
                let position = UInt32(page.first + row)
                if !reply.alreadyCoded.contains(where: { $0.begin <= position && position < $0.end }) {
                    known[page]?.exact[row] = true
                }
            }
        }
    }

    private mutating func drop() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let session = sessions[at]
        let isAll = Int.random(in: 0..<3, using: &generator) == 0
        let others = Set(sessions.filter { $0.id != session.id }.flatMap(\.pages))
        let pages =
            isAll
            ? session.pages.filter { !others.contains($0) }
            : names.filter {
                $0.tenant == session.caller.tenant && Int.random(in: 0..<4, using: &generator) == 0
            }
        guard isAll || !pages.isEmpty else { return }
        _ = try engine.drop(DropRequest(session: session.id, keys: isAll ? [] : pages.map(\.key)), session.caller)
        for page in pages {
            known[page] = nil
            for other in sessions.indices { sessions[other].pages.removeAll { $0 == page } }
        }
        if isAll {
            leave(session, session.pages)
            sessions[at].pages = []
        }
        for page in pages where !plan.hasCrashed {
            try require(engine.store.residence(page.storeKey) == .absent, "\(page) is there after a drop")
        }
        narrow()
    }

    /// A page goes from the store without anybody's doing, as when it is evicted.
    private mutating func lose() {
        let page = randomPage()
        guard known[page] != nil else { return }
        engine.store.remove(page.storeKey)
        known[page] = Known(page)
        known[page]?.isThere = false
    }

    private mutating func flush() throws {
        guard let session = sessions.randomElement(using: &generator) else { return }
        drain()
        try follow()
        let isAll = Bool.random(using: &generator)
        let request = FlushRequest(session: isAll ? Wire.none : session.id)
        do { _ = try engine.flush(try engine.flushed(request, session.caller), session.caller) } catch {
            return try require(plan.total > faultsAtStart, "a flush failed without a reason: \(error)")
        }
        guard !plan.hasCrashed, let now = sessions.first(where: { $0.id == session.id }) else { return }
        for (page, state) in known where page.tenant == session.caller.tenant && state.isThere {
            if isAll || now.pages.contains(page) { known[page]!.isFlushed = true }
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
        for page in session.pages where known[page]?.isThere == true {
            for row in 0..<page.tokens where session.protects(page.first + row) && known[page]!.exact[row] {
                known[page]!.retained[row] = true
                if plan.total == faults, !plan.hasCrashed { known[page]!.lasting[row] = true }
            }
        }
        narrow()
    }

    private mutating func lookup() {
        guard let session = sessions.randomElement(using: &generator) else { return }
        // Leases end with their connection.
        _ = try? engine.lookup(
            LookupRequest(session: session.id, leaseMs: 5000, keys: session.pages.map(\.key)), session.caller)
    }

    /// Runs every job that waits for a coder.
    private func drain() { while engine.pool.runNext() {} }

    /// Takes the rows back that nobody protects now: the page may be coded from here on.
    private mutating func narrow() {
        for (page, state) in known {
            let users = sessions.filter { $0.pages.contains(page) }
            for row in 0..<page.tokens where state.exact[row] && !state.retained[row] {
                if !users.contains(where: { $0.protects(page.first + row) }) { known[page]!.exact[row] = false }
            }
        }
    }

    /// Compares the engine's sessions with the model's. A page that its coder found to be gone is no longer in any.
    private mutating func follow(isFree: Bool = false) throws {
        guard !plan.hasCrashed else { return }
        for at in sessions.indices {
            let (pages, tokens) = engine.ledger.withLock { ledger in
                (ledger.sessions[sessions[at].id]?.pages ?? [], ledger.sessions[sessions[at].id]?.tokens)
            }
            let kept = sessions[at].pages.filter { page in
                pages.contains { $0.key == page.storeKey && $0.first == page.first && $0.tokens == page.tokens }
            }
            let gone = sessions[at].pages.filter { !kept.contains($0) }
            try require(
                isFree || kept.count == pages.count, "session \(sessions[at]) has other pages: \(pages.map(\.first))")
            for page in gone {
                let mayBeGone = known[page].map { !$0.isThere || $0.mayExpire } ?? true
                try require(isFree || mayBeGone || plan.total > faultsAtStart, "\(page) has left a session")
            }
            sessions[at].pages = kept
            try require(isFree || tokens == sessions[at].tokens, "a session ends at \(tokens ?? -1)")
        }
        narrow()
    }

    // MARK: - Checks

    private func require(_ isRight: Bool, _ what: @autoclosure () -> String) throws {
        if !isRight { throw Broken(description: what()) }
    }

    /// A session of a connection of its own that takes any coding.
    private mutating func pull(_ page: PageID) throws {
        connections += 1
        let caller = Caller(tenant: page.tenant, connection: connections, isAdministrator: false)
        let policy = WirePolicy(sink: 0, window: 0, mode: .quant4)
        let reader = try engine.openSession(Pages.request(policy: policy), caller).session
        let failures = plan.total
        let (back, outcome) = try pull(page, reader, caller)
        engine.connectionEnded(connections)
        guard let back else {
            let isExcused = plan.total > failures || known[page]?.isThere != true || known[page]?.mayExpire == true
            return try require(outcome == .miss && isExcused, "\(page) is a \(outcome)")
        }
        try check(page, back) { known[page]?.exact[$0] == true }
    }

    /// A session gets what it was promised, or nothing.
    private mutating func pullAsItself() throws {
        guard let session = sessions.randomElement(using: &generator),
            let page = session.pages.randomElement(using: &generator)
        else { return }
        let failures = plan.total
        let (back, outcome) = try pull(page, session.id, session.caller)
        let exact = known[page]?.exact
        guard let back else {
            let isWorse =
                session.policy.mode == .quant8 || (0..<page.tokens).contains { session.keeps(page.first + $0) }
            let isExcused =
                plan.total > failures || known[page]?.isThere != true || known[page]?.mayExpire == true
                || isWorse && exact?.contains(false) == true
            return try require(outcome == .miss && isExcused, "\(page) is a \(outcome) to its session")
        }
        try check(page, back) { exact?[$0] == true || session.keeps(page.first + $0) }
    }

    private func pull(_ page: PageID, _ session: UInt32, _ caller: Caller) throws -> ([UInt8]?, PullOutcome) {
        let request = PullRequest(
            session: session, arena: Wire.none, entries: [PullEntry(key: page.key, offset: 0, capacity: 1 << 20)])
        var back: [UInt8]?
        var outcome = PullOutcome.hit
        _ = try engine.pull(request, arena: nil, caller) { (ready: ReadyPart) throws(Never) in
            outcome = ready.part.outcome
            if outcome == .hit { ready.bytes.withBytes { back = Array($0) } }
        }
        return (back, outcome)
    }

    private func check(_ page: PageID, _ back: [UInt8], isExact: (Int) -> Bool) throws {
        try require(back.count == page.bytes.count, "\(page) has \(back.count) bytes")
        let isBad = known[page].map(\.isBad) ?? (everBad.contains(page) ? nil : false)
        let contents = isBad.map { [$0 ? page.badBytes : page.bytes] } ?? [page.bytes, page.badBytes]
        func fault(_ bytes: [UInt8]) -> String? {
            for row in 0..<page.tokens {
                let (before, after) = (Pages.row(bytes, row), Pages.row(back, row))
                if before == after { continue }
                if isExact(row) { return "row \(row) of \(page) is protected and not exact" }
                if !Pages.areNear(before, after) { return "row \(row) of \(page) has other values" }
            }
            return nil
        }
        let faults = contents.map(fault)
        try require(faults.contains(nil), faults.compactMap(\.self).first ?? "")
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
            var now = Known(page)
            (now.isThere, now.isFlushed) = (state.isThere && (isKill || state.isFlushed), state.isFlushed)
            (now.mayExpire, now.isBad) = (state.mayExpire, everBad.contains(page) ? nil : false)
            known[page] = now
            guard isKill else { continue }
            let lasting = state.lasting.map { $0 && lasts }
            known[page]!.lasting = lasting
            known[page]!.retained = lasting
            known[page]!.exact = zip(state.exact, lasting).map { $0 && $1 }
        }
    }
}
