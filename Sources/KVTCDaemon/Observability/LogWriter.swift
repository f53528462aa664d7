import Glibc
import KVTCSystem
import Logging
import Synchronization

/// Writes log lines from a thread of its own, so that a log that is not read delays no request, and those of one message no oftener
/// than at a fixed rate, so that no client can fill a disk with it. Lines that find no room or come too often are left out and
/// counted.
public final class LogWriter: Sendable {
    /// Lines of one message that may come at once; after that one a second.
    static let burst = 20.0
    /// The most bytes of one line: what a pipe takes whole.
    static let lineBytes = 4096
    /// Bytes that may wait.
    private static let waitingBytes = 32 << 10

    /// The process's standard error.
    public static let standardError = LogWriter(descriptor: 2)

    /// How often one message came.
    private struct Rate {
        var level: Logger.Level
        /// How many may come now, at the time of the last one.
        var allowance = LogWriter.burst
        var time: UInt64
        var leftOut: UInt64 = 0

        mutating func refill(_ now: UInt64) {
            allowance = min(LogWriter.burst, allowance + Double(now - time) / 1e9)
            time = now
        }
    }

    private enum Item {
        case entry(LogEntry)
        /// Wait until the log takes something.
        case probe
    }

    private struct State {
        var waiting: [Item] = []
        var bytes = 0
        var isWriting = false
        /// Whether the last line could not be written.
        var isBroken = false
        var isFinishing = false
        var dropped: UInt64 = 0
        /// Dropped and not told of.
        var untold: UInt64 = 0
        var rates: [String: Rate] = [:]
        /// Messages of which lines were left out.
        var limited: Set<String> = []

        mutating func append(_ entry: LogEntry) {
            waiting.append(.entry(entry))
            bytes += entry.byteCount
        }
    }

    private let descriptor: Int32
    /// Whether a journal reads the descriptor: it gets its entries in its own protocol.
    let isJournal: Bool
    private let state = Monitor(State())
    /// Since when the line is being written that is; 0 while none is.
    private let writing = Atomic<UInt64>(0)

    /// Writes to a descriptor, which must stay open.
    package init(descriptor: Int32) {
        self.descriptor = descriptor
        isJournal = LogWriter.isJournal(descriptor)
        do throws(SystemError) {
            try Thread.start(name: "kvtc-log") { [self] in while true { writeNext() } }.detach()
        } catch {
            preconditionFailure("no thread for the log: \(error)")
        }
    }

    // As systemd.exec(5) has it: the variable alone is inherited also where standard error is not.
    private static func isJournal(_ descriptor: Int32) -> Bool {
        var info = stat()
        guard let stream = getenv("JOURNAL_STREAM"), fstat(descriptor, &info) == 0 else { return false }
        return String(cString: stream) == "\(info.st_dev):\(info.st_ino)"
    }

    /// Lines dropped since the start because the log was not read.
    var droppedLines: UInt64 { state.withLock { $0.dropped } }

    /// Since when, by the monotonic clock, the log has not taken the line that is being written; nil while none is. Takes no lock.
    var stuckSince: UInt64? {
        let since = writing.load(ordering: .acquiring)
        return since > 0 ? since : nil
    }

    /// Whether a line of the message may be written now; one that may not is counted.
    func admits(_ message: String, level: Logger.Level) -> Bool {
        state.update { state in
            let now = MonotonicClock.nanoseconds
            var rate = state.rates[message] ?? Rate(level: level, time: now)
            rate.refill(now)
            let isAdmitted = rate.allowance >= 1
            if isAdmitted {
                rate.allowance -= 1
            } else {
                rate.leftOut += 1
                state.limited.insert(message)
            }
            state.rates[message] = rate
            return isAdmitted
        }
    }

    /// Takes an entry to write.
    func write(_ entry: LogEntry) {
        state.update { state in
            guard state.bytes + entry.byteCount <= Self.waitingBytes else {
                state.dropped += 1
                state.untold += 1
                return
            }
            tellOfDropped(&state)
            state.append(entry)
        }
    }

    /// Has the log show whether it takes anything, where no line does, see ``stuckSince``.
    func probe() {
        state.update { if $0.waiting.isEmpty, !$0.isWriting { $0.waiting.append(.probe) } }
    }

    /// Waits until everything is written, for so long at most.
    public func finish(seconds: UInt64) {
        state.update { $0.isFinishing = true }
        let deadline = MonotonicClock.nanoseconds + seconds * 1_000_000_000
        _ = state.wait(until: deadline) { $0.waiting.isEmpty && !$0.isWriting && $0.limited.isEmpty ? true : nil }
        state.update { $0.isFinishing = false }
    }

    // MARK: - On the thread

    private func writeNext() {
        // A second is the time after which a message may have its next line.
        let isLimited = state.withLock { !$0.limited.isEmpty }
        let deadline = isLimited ? MonotonicClock.nanoseconds + 1_000_000_000 : nil
        let taken = state.wait(until: deadline) { state -> Item?? in
            tellOfLeftOut(&state)
            if state.waiting.isEmpty, !state.isBroken { tellOfDropped(&state) }
            if !state.waiting.isEmpty {
                let item = state.waiting.removeFirst()
                if case .entry(let entry) = item { state.bytes -= entry.byteCount }
                state.isWriting = true
                return .some(item)
            }
            return !isLimited && !state.limited.isEmpty ? .some(nil) : nil
        }
        guard let taken, let item = taken else { return }
        writing.store(MonotonicClock.nanoseconds, ordering: .releasing)
        let isWritten = put(item)
        writing.store(0, ordering: .releasing)
        state.update { state in
            (state.isWriting, state.isBroken) = (false, !isWritten)
            if !isWritten {
                state.dropped += 1
                state.untold += 1
            }
        }
    }

    private func tellOfDropped(_ state: inout State) {
        guard state.untold > 0 else { return }
        state.append(
            LogEntry(
                .warning, "lines were dropped: nobody read the log",
                ["dropped": "\(state.untold)", "total": "\(state.dropped)"], isJournal: isJournal))
        state.untold = 0
    }

    private func tellOfLeftOut(_ state: inout State) {
        let now = MonotonicClock.nanoseconds
        for message in state.limited {
            guard var rate = state.rates[message] else { continue }
            rate.refill(now)
            guard rate.allowance >= 1 || state.isFinishing else { continue }
            let pairs: Logger.Metadata = ["about": "\(message)", "left_out": "\(rate.leftOut)"]
            let entry = LogEntry(rate.level, "similar lines left out", pairs, isJournal: isJournal)
            rate.allowance -= 1
            rate.leftOut = 0
            state.rates[message] = rate
            state.limited.remove(message)
            state.append(entry)
        }
    }

    /// Blocks where the log is not read. False when the entry is lost.
    private func put(_ item: Item) -> Bool {
        switch item {
        case .probe:
            awaitRoom()
            return true
        case .entry(let entry): return !entry.fields.isEmpty && Journal.send(entry.fields) || write(entry.line)
        }
    }

    private func write(_ line: String) -> Bool {
        var bytes = Array(line.utf8)[...]
        while !bytes.isEmpty {
            let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written > 0 {
                bytes = bytes.dropFirst(written)
            } else if written < 0, errno == EAGAIN {
                // Another process that has the file open made it so.
                awaitRoom()
            } else if written == 0 || errno != EINTR {
                return false
            }
        }
        return true
    }

    /// A descriptor that is no good ends the wait as well.
    private func awaitRoom() {
        var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        while poll(&room, 1, -1) < 0, errno == EINTR {}
    }
}
