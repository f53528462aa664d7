import KVTCStore
import KVTCSystem

extension FleetTier {
    /// Keys that are named and sent at a time, so that the first answers come while others are still being asked.
    private static let chunk = 256
    /// The first of them, which have to be answered in the time for the first answer: few, so that only a server that is slow fails that, and
    /// no machine that has much to do.
    private static let probe = 16

    /// Which of the pages are there.
    public func ask(_ keys: [StoreKey]) -> [SharedPage?] {
        let start = MonotonicClock.nanoseconds
        let all = keys.prefix(Self.mostAsked)
        let isAbsent = knownAbsences(all)
        let asked = all.indices.filter { !isAbsent[$0] }
        tally.count { [count = all.count - asked.count] in $0.knownAbsent += UInt64(count) }
        guard !asked.isEmpty else { return keys.map { _ in nil } }
        guard !servers.isAway else {
            // Before any name is made: with the servers away, lookups must be as fast as without them.
            tally.count { [count = asked.count] in $0.count(.open, count) }
            return keys.map { _ in nil }
        }
        let patience = UInt64(max(1, settings.lookupMilliseconds)) * 1_000_000
        let answers = AskedPages(count: keys.count, asked: asked.count, start: start)
        var first = 0
        while first < asked.count {
            let now = MonotonicClock.nanoseconds
            guard now < start + 10 * patience else {
                answers.giveUp(asked.count - first)
                break
            }
            let next = min(asked.count, first + (first == 0 ? Self.probe : Self.chunk))
            // A server that leaves the first questions without an answer for so long is slow, which its breaker is to know.
            let deadline = first == 0 ? now + patience : start + 10 * patience
            send(Array(asked[first..<next]), of: keys, until: deadline, answers)
            first = next
        }
        let pages = answers.wait(patience: patience, end: start + 10 * patience)
        tally.count { $0.asks.record(MonotonicClock.nanoseconds - start) }
        return pages
    }

    private func send(_ chunk: [Int], of keys: [StoreKey], until deadline: UInt64, _ answers: AskedPages) {
        let pages = names.pages(chunk.lazy.map { keys[$0] })
        tally.count { [count = chunk.count] in $0.asked += UInt64(count) }
        let questions = pages.map { RedisCommand.getRange($0.name, 0...SharedValue.headBytes - 1) }
        let asked = chunk.map { keys[$0] }
        servers.send(questions, until: deadline) { [self] index, result in
            let head = head(result, asked[index], pages[index])
            answers.note(chunk[index], head?.page, isAnswer: (try? result.get()) != nil)
        }
    }

    /// Nil for a page that is not there, or can't be had or used.
    private func head(_ result: Result<RESPValue, RedisFault>, _ key: StoreKey, _ page: PageName) -> PageHead? {
        let bytes: [UInt8]
        switch result {
        case .success(.bulk(let answer)): bytes = answer
        case .success(.null): bytes = []
        case .success:
            tally.count { $0.count(.malformed) }
            return nil
        case .failure(let fault):
            tally.count { $0.count(fault) }
            return nil
        }
        guard !bytes.isEmpty else {
            noteAbsence(key)
            tally.count { $0.absent += 1 }
            return nil
        }
        do throws(SharedValue.Fault) {
            let head = try SharedValue.head(of: bytes, key: page.key)
            tally.count { $0.hits += 1 }
            return head
        } catch {
            tally.count { $0.count(error) }
            if error != .newer { servers.removeDamaged(page.name) }
            return nil
        }
    }
}

/// The answers to one ``FleetTier/ask(_:)`` as they come.
private final class AskedPages: Sendable {
    private struct State {
        var pages: [SharedPage?]
        var missing: Int
        var lastAnswer: UInt64
    }

    private let state: Monitor<State>

    init(count: Int, asked: Int, start: UInt64) {
        state = Monitor(State(pages: Array(repeating: nil, count: count), missing: asked, lastAnswer: start))
    }

    func note(_ index: Int, _ page: SharedPage?, isAnswer: Bool) {
        let isComplete = state.withLock { state in
            if let page { state.pages[index] = page }
            if isAnswer { state.lastAnswer = MonotonicClock.nanoseconds }
            state.missing -= 1
            return state.missing == 0
        }
        // Woken once: for each answer it would cost more than the answers do.
        if isComplete { state.update { _ in } }
    }

    func giveUp(_ count: Int) { state.withLock { $0.missing -= count } }

    /// What is known when all have answered, when none did for so long, or at the end.
    func wait(patience: UInt64, end: UInt64) -> [SharedPage?] {
        while true {
            let until = state.withLock { min($0.lastAnswer + patience, end) }
            let isOver = MonotonicClock.nanoseconds >= until
            let pages = state.wait(until: until) { $0.missing == 0 || isOver ? $0.pages : nil }
            if let pages { return pages }
        }
    }
}
