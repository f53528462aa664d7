import KVTCStore
import StoreSimulation
import TestSupport

@testable import KVTCDaemon

// The process dies, with or without the machine, and another one starts.
extension SessionSimulation {
    mutating func restart(isKill: Bool) throws {
        report.restarts += 1
        var (found, memory) = plan.takeCrash() ?? (device.copy(), keeper.contents)
        if !isKill {
            (found, memory) = (found.afterPowerCut(seed: generator.next()), [])
            boot += 1
            clock.beginBoot(boot, milliseconds: 5000)
        }
        // Jobs that wait hold the engine that is over, and with it the descriptors of its arenas.
        plan.pause()
        drain()
        plan.resume()
        (sessions, opened) = ([], [:])
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
        for (page, state) in known { known[page] = afterRestart(page, state, isKill: isKill) }
        failuresAtOpen = failures
    }

    /// Sessions died with the process, and what they protected with them; not what those did that were over.
    private func afterRestart(_ page: PageID, _ state: Known, isKill: Bool) -> Known {
        var now = Known(page)
        (now.isThere, now.isFlushed) = (state.isThere && (isKill || state.isFlushed), state.isFlushed)
        now.isBad = everBad.contains(page) ? nil : false
        // Where the machine was off the wall clock tells how long, which somebody may have set; and what says how late it was may
        // be lost.
        let isTimeKnown = isKill && failures == 0
        if let earliest = state.earliestEnd { now.setEnd(isTimeKnown ? earliest : 0) }
        guard isKill else { return now }
        // What had moved to a disk that failed is as that disk knows it.
        let lasts = !isSmall || failures == failuresAtOpen
        now.lasting = state.lasting.map { $0 && lasts }
        now.retained = now.lasting
        now.exact = zip(state.exact, now.lasting).map { $0 && $1 }
        return now
    }
}
