import KVTCProtocol
import KVTCSystem
import Synchronization

/// Asks the daemon for its status, one request at a time: all who ask meanwhile, or within half a second of an answer, get the
/// same one. So scrapes cost the daemon two requests a second at most.
final class Collector: Sendable {
    typealias Answer = Result<StatusReport, MonitorError>

    private static let freshNanoseconds: UInt64 = 500_000_000

    private let last = Mutex<(answer: Answer, time: UInt64)?>(nil)
    private let ask: @Sendable () -> Answer

    /// - Parameter ask: may block, for a bounded time.
    init(_ ask: @escaping @Sendable () -> Answer) { self.ask = ask }

    func answer() -> Answer {
        last.withLock { last in
            if let last, MonotonicClock.nanoseconds - last.time < Self.freshNanoseconds { return last.answer }
            let answer = ask()
            last = (answer, MonotonicClock.nanoseconds)
            return answer
        }
    }
}
