import Foundation
import KVTCStore
import Synchronization
import TestSupport

/// One run of a store against a simulated disk, memory and clock, all from one seed, checked against a model.
///
/// The disk fails, is short, tears and reorders what was not synced, and in some runs lies: it drops, misdirects and flips. Somebody
/// takes files away or cuts them, and sets the wall clock.
/// The process is killed or the power cut at any call to the disk or store to memory, also while the next process recovers.
/// The promises: bytes are right or not there; on a disk that does not lie nothing is missing that the store acknowledged
/// and did not drop to make room, after a kill either, and after a power cut nothing that a flush covered. What lay in a
/// file that is taken away may be gone, but what was removed does not come back after the next flush. A flush may fail only where
/// the disk does.
package struct Simulation {
    /// What a run came to.
    package struct Report: Sendable {
        package var steps = 0
        package var restarts = 0
        /// By kind.
        package var faults: [String: Int] = [:]
        /// The first promise that was broken; nil when all held.
        package var failure: String?

        package init(failure: String? = nil) { self.failure = failure }
    }

    struct Broken: Error, CustomStringConvertible {
        var description: String
    }

    private static let keys = 12
    private let isLying: Bool
    /// The disk is too small for everything: pages that are not pinned may go.
    private let isTight: Bool
    private var generator: SeededGenerator
    private var plan: FaultPlan
    private let clock = TestClock()
    private var device = MemoryDevice()
    private var keeper = TestKeeper()
    private var store: Store
    private var model = SimulationModel()
    private var report = Report()
    private let trace: (@Sendable (String) -> Void)?
    private var next = 0
    private var faultsAtStart = 0
    /// Whether the wall clock was set, and the pages that had an expiry some time.
    private var wasSet = false
    private var expiring: Set<Int> = []
    /// Whether files were taken away or cut: those that were set aside count until their room is needed.
    private var isDamaged = false
    /// Which run of the machine this is.
    private var boot: UInt64 = 1

    /// Runs a seed for so many steps. `trace` is told what happens.
    package static func run(seed: UInt64, steps: Int = 60, trace: (@Sendable (String) -> Void)? = nil) -> Report {
        do {
            var simulation = try Simulation(seed: seed, trace)
            do { try simulation.run(steps) } catch {
                simulation.report.failure = "step \(simulation.report.steps): \(error)"
            }
            simulation.report.faults = simulation.plan.counts
            simulation.plan.detach()
            return simulation.report
        } catch {
            return Report(failure: "the first start: \(error)")
        }
    }

    private init(seed: UInt64, _ trace: (@Sendable (String) -> Void)?) throws {
        self.trace = trace
        generator = SeededGenerator(seed: seed)
        isLying = seed % 4 == 3
        isTight = seed % 3 == 2
        plan = FaultPlan(seed: seed, isLying: isLying, trace)
        clock.beginBoot(boot, milliseconds: 5000)
        store = try Self.open(device, keeper, clock, isTight, plan)
    }

    private static func open(
        _ device: MemoryDevice, _ keeper: TestKeeper, _ clock: TestClock, _ isTight: Bool, _ plan: FaultPlan
    ) throws -> Store {
        plan.attach(device, keeper)
        var configuration = StoreConfiguration.memory(
            device, ram: 6 << 10, disk: isTight ? 48 << 10 : 2 << 20, segment: 6 << 10, clock: clock)
        configuration.arenaBytes = 2 << 10
        configuration.ramStep = { plan.step() }
        return try Store.open(configuration.kept(by: keeper))
    }

    private mutating func run(_ steps: Int) throws {
        for _ in 0..<steps {
            report.steps += 1
            if Int.random(in: 0..<8, using: &generator) == 0 { plan.change() }
            if Int.random(in: 0..<12, using: &generator) == 0 { plan.crashSoon() }
            let failures = plan.total
            try operate()
            if plan.total > failures { model.diskFailed() }
            if plan.hasCrashed {
                try restart()
            } else {
                try checkPresence()
            }
        }
        plan.stop()
        // Once the disk is well again the store is.
        _ = try? store.flush()
        let isHealed = (try? store.flush()) != nil
        try require(isHealed || isLying, "no flush works although the disk does again: \(store.statistics.state)")
        if isHealed { model.flushed(nil) }
        try restart(isKill: true)
        for n in 0..<Self.keys { try read(n) }
    }

    // MARK: - Operations

    private func size(_ seed: Int) -> Int { 30 + seed * 37 % 900 }

    private func bytes(_ seed: Int) -> PageBytes { page(seed, bytes: size(seed)) }

    private mutating func operate() throws {
        let n = Int.random(in: 0..<Self.keys, using: &generator)
        next += 1
        model.begin(n)
        switch Int.random(in: 0..<18, using: &generator) {
        case 0...4: try put(n)
        case 5, 6:
            model.expect(n, next)
            let replaced = store.replace(key(n), bytes: bytes(next), attributes: PageAttributes(coded: true))
            trace?("replace page \(n) by \(next): \(replaced)")
            if replaced { try model.replaced(n, next, isLoose: isLying || isTight) }
        case 7:
            model.expect(n, nil)
            let removed = store.remove(key(n))
            trace?("remove page \(n): \(removed)")
            try require(removed == model.isPresent(n) || isLying || isTight, "removing page \(n) said \(removed)")
            model.removed(n)
        case 8:
            // Whose end may have come while a pin kept it is not unpinned without a new one: the daemon gives pages with an end a life
            // after each use.
            let pinned = Bool.random(using: &generator) || mayHaveExpired(n)
            let updated = store.update(key(n), pinned: pinned, priority: UInt8(n))
            trace?("pin page \(n) \(pinned): \(updated)")
            if updated { model.pin(n, pinned) }
        case 9:
            let moved =
                Bool.random(using: &generator)
                ? try? store.evictToDisk([key(n)]) : try? store.evictToDisk(untilFree: n << 9)
            trace?("evict page \(n) or others: \(moved.map { "\($0)" } ?? "failed")")
        case 10:
            let all = Bool.random(using: &generator)
            var flushed = true
            let order = Bool.random(using: &generator) ? Store.FlushOrder.mostWorthFirst : .mostWorthLast
            do { try store.flush(all ? nil : [key(n)], order: order) } catch {
                flushed = false
                try require(isLying || plan.total > faultsAtStart, "a flush failed without a reason: \(error)")
            }
            trace?("flush \(all ? "all" : "page \(n)"), \(order): \(flushed)")
            // What came after the process was to die does not count.
            if flushed, !plan.hasCrashed { model.flushed(all ? nil : n) }
        case 11: trace?("prefetch page \(n): \(store.prefetch(key(n)))")
        case 12:
            let lease = store.lease([key(n), key((n + 1) % Self.keys)], until: clock.milliseconds + 5000)
            if Bool.random(using: &generator) { _ = store.release(lease) }
        case 13:
            clock.advance(seconds: 7)
            trace?("time passes; heal")
            _ = store.purgeExpired()
            store.heal()
        case 14:
            let found = store.verify { _ in }
            try require(found.corrupt == 0 || isLying, "verifying found \(found.corrupt) corrupt copies")
        case 15:
            let wall = clock.wall
            clock.set(wall: UInt64.random(in: 0...2 * wall, using: &generator))
            wasSet = true
            trace?("the wall clock is set from \(wall) to \(clock.wall)")
        case 16 where next % 4 == 0: try damage()
        default: try read(n)
        }
    }

    /// Somebody takes a segment away or cuts it, which the store finds out.
    private mutating func damage() throws {
        guard let path = device.names.filter({ $0.hasSuffix(".log") }).randomElement(using: &generator) else { return }
        plan.pause()
        defer { plan.resume() }
        isDamaged = true
        if Bool.random(using: &generator) {
            trace?("\(path) vanishes")
            device.vanish(path)
        } else {
            let size = Int.random(in: 0...device.contents(path).count, using: &generator)
            trace?("\(path) is cut to \(size)")
            device.cut(path, to: size)
        }
        store.heal()
        for n in 0..<Self.keys {
            trace?("page \(n) is there now: \(store.residence(key(n)))")
            model.damaged(n, isThere: store.residence(key(n)) != .absent)
        }
    }

    private mutating func put(_ n: Int) throws {
        model.expect(n, next)
        // Later than any run lasts, which a clock that is set must not change.
        let expires = next.isMultiple(of: 3) ? store.seconds + 100_000 : nil
        if expires != nil { expiring.insert(n) }
        let pinned = isTight && model.pinned < 3 && Int.random(in: 0..<4, using: &generator) == 0
        let outcome = store.put(
            key(n), bytes: bytes(next), attributes: PageAttributes(pinned: pinned, expires: expires))
        trace?("put page \(n) number \(next)\(pinned ? " pinned" : ""): \(outcome)")
        switch outcome {
        case .stored:
            try require(!model.isPresent(n) || isLying || isTight, "page \(n) was stored although it is there")
            model.stored(n, next, pinned: pinned)
        case .present: try require(model.isPresent(n) || isLying, "page \(n) is called present and is not")
        case .full: break
        case .tooLarge: throw Broken(description: "page \(n) is called too large")
        }
    }

    // MARK: - Checks

    private func require(_ isRight: Bool, _ what: @autoclosure () -> String) throws {
        if !isRight { throw Broken(description: what()) }
    }

    private mutating func read(_ n: Int) throws {
        let failures = plan.total
        switch store.read(key(n), { PageBytes(array: Array($0)) }) {
        case .hit(let found): try check(n, found)
        case .miss:
            let isExcused = isLying || plan.total > failures && store.residence(key(n)) == .disk
            try require(!model.isPresent(n) || isExcused || mayBeGone(n), "page \(n) is lost")
        case .corrupt: try require(isLying, "page \(n) is corrupt")
        }
    }

    private func check(_ n: Int, _ found: PageBytes) throws {
        if isLying {
            try require(model.history[n].contains { found == bytes($0) }, "page \(n) has bytes it never had")
        } else {
            let right = model.current[n].map { found == bytes($0) }
            try require(right == true, "page \(n) has other bytes than were put")
        }
    }

    private func mayBeGone(_ n: Int) -> Bool { isTight && !model.isPinned(n) }

    /// The bytes on the device against what the store says; it may count more after a failure, never less.
    private func checkAccounts(_ statistics: StoreStatistics) throws {
        let bytes = device.totalBytes
        let isExact = plan.total == faultsAtStart && !isDamaged
        let isRight = isExact ? bytes == statistics.diskUsed : bytes <= statistics.diskUsed
        try require(isRight, "\(bytes) bytes are on disk, the store counts \(statistics.diskUsed)")
    }

    private func checkPresence() throws {
        let statistics = store.statistics
        try require(
            statistics.ramUsed <= statistics.ramBudget && statistics.diskUsed <= statistics.diskBudget
                && device.totalBytes <= statistics.diskBudget, "a budget is exceeded")
        guard !isLying else { return }
        try checkAccounts(statistics)
        for n in 0..<Self.keys {
            let isThere = store.residence(key(n)) != .absent
            if !isThere, mayBeGone(n) { continue }
            try require(isThere == model.isPresent(n), "page \(n) \(isThere ? "is there and was removed" : "is gone")")
        }
    }

    // MARK: - Restarts

    private mutating func restart(isKill forced: Bool = false) throws {
        report.restarts += 1
        var isKill = forced || Bool.random(using: &generator)
        var (found, memory) = plan.takeCrash() ?? (device.copy(), keeper.contents)
        // The process before is over, whatever it still did after the moment it was killed at.
        if !isKill { found = cutPower(found) }
        for attempt in 0... {
            keeper = TestKeeper(isKill ? memory : [])
            device = isKill ? found.copy() : found
            if !forced, attempt < 3, Bool.random(using: &generator) { plan.crashSoon() }
            if attempt == 3 { plan.rest() }
            faultsAtStart = plan.total
            let readsBefore = plan.failedReads
            trace?("start after a \(isKill ? "kill" : "power cut") with \(found.names.joined(separator: " "))")
            let opened = Result { try Self.open(device, keeper, clock, isTight, plan) }
            if let crash = plan.takeCrash() {
                report.restarts += 1
                (found, memory) = crash
                if !isKill || Bool.random(using: &generator) {
                    isKill = false
                    found = cutPower(found)
                }
                continue
            }
            // A device that fails may keep a store from opening or from finding everything, but costs nothing for good: the
            // next start, when it works, finds it.
            let isClean = plan.total == faultsAtStart
            if case .success(let store) = opened, isClean || Bool.random(using: &generator) {
                self.store = store
                // What the device did not let it open is there once it does.
                if !store.isDiskOpen {
                    plan.rest()
                    store.heal()
                    trace?("the disk opens: \(store.isDiskOpen)")
                    try require(store.isDiskOpen, "the disk does not open: \(store.statistics.state)")
                }
                return try settle(isKill, isPartial: plan.failedReads > readsBefore)
            }
            plan.rest()
            (found, memory) = (device.copy(), isKill ? keeper.contents : [])
            try require(attempt < 10, "the store does not open: \(opened)")
        }
    }

    private mutating func cutPower(_ device: MemoryDevice) -> MemoryDevice {
        boot += 1
        clock.beginBoot(boot, milliseconds: UInt64.random(in: 0...10_000, using: &generator))
        return device.afterPowerCut(seed: generator.next())
    }

    /// A clock that was set before the machine ran again, or of which no mark could be written or read, is taken at its word.
    private func mayHaveExpired(_ n: Int) -> Bool {
        let failures = plan.total - (plan.counts["crash"] ?? 0)
        return wasSet && expiring.contains(n) && (boot > 1 || failures > 0)
    }

    /// Looks at everything the new process found, and goes on from that. `isPartial`: some of it could not be read.
    private mutating func settle(_ isKill: Bool, isPartial: Bool) throws {
        plan.pause()
        defer { plan.resume() }
        for n in 0..<Self.keys {
            var seed: Int?
            switch store.read(key(n), { PageBytes(array: Array($0)) }) {
            case .hit(let found):
                seed = model.history[n].first { found == bytes($0) }
                try require(seed != nil, "page \(n) has bytes it never had after a \(isKill ? "kill" : "power cut")")
            case .miss: break
            case .corrupt: try require(isLying, "page \(n) is corrupt after a restart")
            }
            let isDropped = seed == nil && isTight && !model.isDurablyPinned(n)
            let isRight =
                model.mayBe(n, seed, isKill: isKill) || isLying || isDropped || isPartial
                || seed == nil && mayHaveExpired(n)
            try require(
                isRight,
                "page \(n) is \(seed.map { "number \($0)" } ?? "gone") after a \(isKill ? "kill" : "power cut")")
            trace?("found page \(n) as \(seed.map { "\($0)" } ?? "gone")")
            let isPinned = store.attributes(key(n))?.pinned ?? false
            if isPartial {
                model.glimpsed(n, seed, pinned: isPinned)
            } else {
                model.found(n, seed, pinned: isPinned, isKill: isKill)
            }
            // That it has expired is not written down yet, and the clock may be set back.
            if seed == nil, mayHaveExpired(n) { model.damaged(n, isThere: false) }
        }
        try checkPresence()
    }
}
