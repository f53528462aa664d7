import Foundation
import KVTCStore
import Synchronization
import TestSupport

/// Decides from a seed which calls fail and when the process dies, and keeps what it leaves behind.
package final class FaultPlan: Sendable {
    private struct State {
        var generator: SeededGenerator
        /// One call in so many fails; 0: none.
        var rate = 0
        var isPaused = false
        var isStopped = false
        /// Calls and stores until the process dies; nil: not soon.
        var untilCrash: Int?
        var crash: (MemoryDevice, [(name: String, bytes: [UInt8])])?
        var device: MemoryDevice?
        var keeper: TestKeeper?
        var counts: [String: Int] = [:]
        var failedReads = 0
    }

    private let isLying: Bool
    private let state: Mutex<State>

    private let trace: (@Sendable (String) -> Void)?

    package init(seed: UInt64, isLying: Bool, _ trace: (@Sendable (String) -> Void)?) {
        self.isLying = isLying
        self.trace = trace
        state = Mutex(State(generator: SeededGenerator(seed: seed ^ 0xFA17)))
    }

    /// From now on it is about this device and memory.
    package func attach(_ device: MemoryDevice, _ keeper: TestKeeper) {
        state.withLock {
            $0.device = device
            $0.keeper = keeper
        }
        device.setFault { [self] _, operation in
            countdown()
            let fault = fault(operation)
            if let fault { trace?("  \(operation): \(fault)") }
            return fault
        }
    }

    /// Lets go of device and memory, which know the plan in turn.
    package func detach() {
        state.withLock {
            $0.device?.setFault { _, _ in nil }
            $0.device = nil
            $0.keeper = nil
            $0.crash = nil
        }
    }

    package var counts: [String: Int] { state.withLock { $0.counts } }
    /// Faults so far.
    package var total: Int { state.withLock { $0.counts.values.reduce(0, +) } }
    /// Calls so far that would have told something and failed.
    package var failedReads: Int { state.withLock { $0.failedReads } }
    package var hasCrashed: Bool { state.withLock { $0.crash != nil } }

    /// Good times and bad times take turns.
    package func change() {
        state.withLock { $0.rate = [0, 0, 40, 10, 3].randomElement(using: &$0.generator)! }
    }

    package func rest() { state.withLock { $0.rate = 0 } }
    package func pause() { state.withLock { $0.isPaused = true } }
    package func resume() { state.withLock { $0.isPaused = false } }

    /// No faults any more.
    package func stop() {
        state.withLock {
            $0.isStopped = true
            $0.untilCrash = nil
        }
    }

    package func crashSoon() {
        state.withLock {
            guard !$0.isStopped, $0.untilCrash == nil else { return }
            $0.untilCrash = Int.random(in: 0..<40, using: &$0.generator)
        }
    }

    /// What the process left, if it died; the next one is not about to die.
    package func takeCrash() -> (MemoryDevice, [(name: String, bytes: [UInt8])])? {
        state.withLock {
            let crash = $0.crash
            ($0.crash, $0.untilCrash) = (nil, nil)
            return crash
        }
    }

    /// A store to memory has been made.
    package func step() { countdown() }

    // The device's lock is not held where its contents are copied: the fault is asked for before that lock is taken.
    private func countdown() {
        let dying = state.withLock { state -> (MemoryDevice, TestKeeper)? in
            guard !state.isPaused, let left = state.untilCrash else { return nil }
            state.untilCrash = left > 0 ? left - 1 : nil
            guard left == 0, let device = state.device, let keeper = state.keeper else { return nil }
            state.counts["crash", default: 0] += 1
            return (device, keeper)
        }
        guard let (device, keeper) = dying else { return }
        let left = (device.copy(), keeper.contents)
        trace?("  the process dies here")
        state.withLock { $0.crash = left }
    }

    private func fault(_ operation: String) -> Fault? {
        state.withLock { state in
            guard !state.isPaused, !state.isStopped, state.rate > 0,
                Int.random(in: 0..<state.rate, using: &state.generator) == 0
            else { return nil }
            let (name, fault) = choose(operation, &state.generator)
            state.counts[name, default: 0] += 1
            if case .error = fault, ["mkdir", "flock", "readdir", "open", "fstat", "pread"].contains(operation) {
                state.failedReads += 1
            }
            return fault
        }
    }

    private func choose(_ operation: String, _ generator: inout SeededGenerator) -> (String, Fault) {
        let code = Bool.random(using: &generator) ? ENOSPC : EIO
        let error = (code == EIO ? "EIO" : "ENOSPC", Fault.error(code))
        let kind = Int.random(in: 0..<(isLying ? 8 : 5), using: &generator)
        switch (operation, kind) {
        case ("pwrite", 1): return ("torn write", .partial(code))
        case ("pwrite", 2): return ("short write", .short)
        case ("pwrite", 3): return ("failed write that landed", .landed(code))
        case ("pwrite", 5): return ("dropped write", .dropped)
        case ("pwrite", 6):
            let distance = Int.random(in: -40...40, using: &generator) * 64
            return ("misdirected write", .misdirected(distance))
        case ("pwrite", 7): return ("flipped bit", .flipped(Int.random(in: 0..<1 << 16, using: &generator)))
        case ("pread", 1...3): return ("short read", .short)
        case ("pread", 5...7): return ("flipped bit", .flipped(Int.random(in: 0..<1 << 16, using: &generator)))
        default: return error
        }
    }
}
