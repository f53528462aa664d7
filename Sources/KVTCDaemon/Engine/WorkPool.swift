import DequeModule
import KVTCSystem

/// A fixed number of threads that compute. What a client waits for goes before what runs in the background.
package final class WorkPool: Sendable {
    /// Who waits for a job.
    package enum Urgency: Int, Sendable {
        /// A client.
        case urgent = 0
        /// No client.
        case background = 1
    }

    /// What the kernel is told of the threads.
    package enum Priority: Sendable {
        case normal
        /// They leave the processor to others.
        case low
    }

    private typealias Job = @Sendable () -> Void

    private struct State {
        var queues: [Deque<Job>] = [[], []]
        var taken: UInt64 = 0
        var isStopping = false
    }

    private let state = Monitor(State())
    private let threads: [Thread]

    /// Starts the threads.
    package init(
        threads count: Int, name: String = "kvtc-work", priority: Priority = .normal
    ) throws(SystemError) {
        var started: [Thread] = []
        let state = state
        for index in 0..<max(1, count) {
            // Codecs recurse little but keep block-sized scratch on the stack; 4 MiB is what the main thread has room for.
            started.append(
                try Thread.start(name: "\(name)-\(index)", stackBytes: 4 << 20) {
                    if priority == .low { Thread.giveWay() }
                    while let job = WorkPool.next(state) { job() }
                })
        }
        threads = started
    }

    /// A pool without threads: a job runs when ``runNext()`` is called, so that a simulation decides the order, or when it
    /// is waited for.
    package init() { threads = [] }

    /// For who is about to wait for a job: runs the next one if no thread does. False when there is nothing left but to wait.
    package func runNextHere() -> Bool { threads.isEmpty && runNext() }

    /// Runs the next job on the caller's thread; false when none waits.
    package func runNext() -> Bool {
        guard let job = state.withLock({ $0.queues[0].popFirst() ?? $0.queues[1].popFirst() }) else { return false }
        job()
        return true
    }

    private static func next(_ state: Monitor<State>) -> (@Sendable () -> Void)? {
        // A double optional: nil keeps waiting, a nil inside ends the thread.
        let taken: (@Sendable () -> Void)?? = state.wait { state in
            if let job = state.queues[0].popFirst() ?? state.queues[1].popFirst() {
                state.taken += 1
                return .some(job)
            }
            return state.isStopping ? .some(nil) : nil
        }
        return taken.flatMap { $0 }
    }

    /// Adds a job behind those of the same urgency.
    package func submit(_ urgency: Urgency, _ job: @escaping @Sendable () -> Void) {
        state.update { $0.queues[urgency.rawValue].append(job) }
    }

    /// The values of `body` for 0 ..< `count`, computed by the caller's thread and by those of the pool that are free:
    /// a busy pool delays nothing.
    package func map<Value: Sendable>(_ count: Int, _ body: @escaping @Sendable (Int) -> Value) -> [Value] {
        let batch = Monitor((next: 0, left: count, values: [Value?](repeating: nil, count: count)))
        @Sendable func computeNext() -> Bool {
            let index = batch.withLock { batch -> Int? in
                guard batch.next < count else { return nil }
                defer { batch.next += 1 }
                return batch.next
            }
            guard let index else { return false }
            let value = body(index)
            batch.update {
                $0.values[index] = value
                $0.left -= 1
            }
            return true
        }
        // One value a job: others that wait have their turn in between.
        @Sendable func help() { if computeNext() { submit(.urgent, help) } }
        // The caller is one of the threads, so that as many compute as the pool was given.
        for _ in 1..<max(1, min(count, threads.count)) { submit(.urgent, help) }
        while computeNext() {}
        return batch.wait { $0.left == 0 ? $0.values.compactMap(\.self) : nil } ?? []
    }

    /// How many jobs can run side by side.
    package var width: Int { max(1, threads.count) }

    /// Forgets the jobs that wait; how many there were.
    package func discard(_ urgency: Urgency) -> Int {
        state.update { state in
            defer { state.queues[urgency.rawValue] = [] }
            return state.queues[urgency.rawValue].count
        }
    }

    /// How many jobs its threads have begun. It grows while they get on.
    package var taken: UInt64 { state.withLock { $0.taken } }

    /// How many jobs wait.
    package func waiting(_ urgency: Urgency) -> Int { state.withLock { $0.queues[urgency.rawValue].count } }

    /// Lets the threads finish what waits and ends them.
    package func stop() {
        state.update { $0.isStopping = true }
        for thread in threads { thread.join() }
    }
}
