import KVTCCodec
import KVTCProtocol
import KVTCSessions
import KVTCSystem
import Logging
import StoreSimulation
import TestSupport

@testable import KVTCDaemon
@testable import KVTCStore

/// One run of sessions of two tenants and four models on a real engine, whose disk, memory, clocks and coders are simulated from one
/// seed. Sessions push pages and blocks, go back and go on differently, change their policies, look up, drop, flush, prefetch and close, or lose
/// their connection and come back on another, while pages wait for their coders; pages expire, get lost or hold NaN; the wall clock
/// is set; calls to the disk fail; the process is killed or the power cut.
///
/// The promises: a page that was acknowledged and neither dropped nor lost, and whose time is not over, comes back; rows that
/// sessions protected without a break, live ones or by then closed ones, come back bit by bit, and so do all that a push finds
/// protected, whatever was there; after a power cut this is true of what a flush covered. No session is given a lossy row that its
/// policy keeps exact at that position, nor anything of another tenant, identity or shape, which name their pages by the same keys.
/// No push is refused, and the engine's list of a session's pages is the model's. Nothing stays in the ledger when all sessions are
/// over.
struct SessionSimulation {
    struct Broken: Error, CustomStringConvertible { var description: String }

    static let tokens = 16
    static let pages = 6
    let isSmall: Bool
    var failuresAtOpen = 0
    /// Faults but for crashes.
    var failures: Int { plan.total - (plan.counts["crash"] ?? 0) }
    var generator: SeededGenerator
    let plan: FaultPlan
    let clock = TestClock()
    /// Milliseconds of the steady clock since the beginning, over all boots.
    var elapsed: UInt64 = 0
    var boot: UInt64 = 1
    var device = MemoryDevice()
    var keeper = TestKeeper()
    var engine: Engine
    var faultsAtStart = 0
    var sessions: [LiveSession] = []
    /// Models of sessions since the start, by tenant.
    var opened: [UInt32: Set<Model>] = [:]
    var known: [PageID: Known] = [:]
    /// Pages that were pushed with NaN in them some time.
    var everBad: Set<PageID> = []
    var connections: UInt64 = 1
    var report = Simulation.Report()

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
        clock.beginBoot(boot, milliseconds: 5000)
        engine = try Self.open(device, keeper, clock, isSmall, plan)
    }

    static func open(
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

    private mutating func step() throws {
        report.steps += 1
        if chance(10) { plan.change() }
        if chance(25) { plan.crashSoon() }
        switch Int.random(in: 0..<32, using: &generator) {
        case 0, 1: try openSession()
        case 2...8: try push()
        case 9, 10:
            for _ in 0..<Int.random(in: 1...4, using: &generator) where engine.pool.runNext() {}
            try follow()
        case 11: try setPolicy()
        case 12: try drop()
        case 13: try dropOfTenant()
        case 14: try truncate()
        case 15: try flush()
        case 16: try close()
        case 17: try reconnect()
        case 18: passTime()
        case 19: setClock()
        case 20, 21: try lookup()
        case 22: try prefetch()
        case 23: lose()
        case 24, 25: try pullAsItself()
        case 26, 27: try pushBlock()
        case 28:
            engine.codeWhileIdle { .max }
            engine.forgetGoneWaiting()
        default: try pull(randomPage())
        }
        if plan.hasCrashed { try restart(isKill: Bool.random(using: &generator)) }
    }

    private mutating func passTime() {
        clock.advance(seconds: 1)
        elapsed += 1000
    }

    /// Somebody sets the wall clock, which no page's time is measured with.
    private mutating func setClock() {
        clock.set(wall: .random(in: 1...3_000_000, using: &generator))
    }

    private mutating func end() throws {
        plan.stop()
        if plan.hasCrashed { try restart(isKill: true) }
        for page in names { try pull(page) }
        while !sessions.isEmpty { try close() }
        for connection in 0...connections { engine.connectionEnded(connection) }
        drain()
        let left = engine.ledger.withLock { ($0.sessions.count, $0.pages.count) }
        try require(left == (0, 0), "\(left.0) sessions and \(left.1) pages are left in the ledger")
        try require(engine.pendingEncodes == 0 && engine.leases.withLock { $0.isEmpty }, "jobs or leases are left")
        try require(engine.prefetching.withLock { $0.isEmpty }, "pages are left to be brought")
        try restart(isKill: true)
        for page in names { try pull(page) }
    }

    // MARK: - Help

    /// In an order that is the same in every run of a seed.
    var names: [PageID] { known.keys.sorted { $0.order < $1.order } }

    mutating func chance(_ oneIn: Int) -> Bool { Int.random(in: 0..<oneIn, using: &generator) == 0 }

    mutating func randomPage() -> PageID {
        names.randomElement(using: &generator) ?? PageID(tenant: 1, model: Model.allCases[0], index: 0)
    }

    /// Has every page coded that may be, and runs every job that waits for a coder or for the disk.
    func drain() {
        engine.encodeWaiting(nil)
        while engine.readers.runNext() || engine.pool.runNext() {}
    }

    /// Whether a page's time may be over.
    func mayExpire(_ page: PageID) -> Bool { known[page]?.end.map { $0 <= elapsed } ?? false }

    func require(_ isRight: Bool, _ what: @autoclosure () -> String) throws {
        if !isRight { throw Broken(description: what()) }
    }
}
