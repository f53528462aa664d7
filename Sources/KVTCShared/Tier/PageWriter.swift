import KVTCStore
import KVTCSystem

/// The part of ``WriteBehind`` that writes: a few pages at a time, of which those are left out that the cluster has as good or better.
struct PageWriter {
    /// Pages of which it is asked at a time whether they are there.
    private static let pagesAtATime = 64
    /// Bytes of values after which those that are ready are sent.
    private static let bytesAtATime = 1 << 20
    /// How often a page is tried that its server does not take while others take theirs.
    private static let attempts = 3

    private let queue: WriteBehind
    private let written: @Sendable (StoreKey) -> Void
    private var ready: [(offer: WriteBehind.Offer, command: RedisCommand, bytes: Int, removal: UInt64?)] = []
    /// Of the pages at hand those that were sent, and those that were taken.
    private var sent = 0, taken = 0

    init(_ queue: WriteBehind, _ written: @escaping @Sendable (StoreKey) -> Void) {
        (self.queue, self.written) = (queue, written)
    }

    static func takeOffers(_ state: inout WriteBehind.State) -> [WriteBehind.Offer] {
        let offers = Array(state.offers.prefix(pagesAtATime))
        state.offers.removeFirst(offers.count)
        for offer in offers { state.offered.remove(offer.key) }
        return offers
    }

    mutating func write(_ offers: [WriteBehind.Offer]) {
        let removals = queue.removals(offers.map(\.key)[...])
        let pages = queue.names.pages(offers.map(\.key))
        let heads = queue.servers.exchange(
            pages.map { .getRange($0.name, 0...SharedValue.headBytes - 1) },
            milliseconds: queue.settings.behindMilliseconds)
        var faults: [(offer: WriteBehind.Offer, fault: RedisFault)] = []
        (sent, taken) = (0, 0)
        for (index, result) in heads.enumerated() {
            switch result {
            case .success(let answer):
                // One that is to be removed is as good as absent, and removed by being written over.
                let there = removals[index] == nil ? answer.bytes ?? [] : []
                prepare(offers[index], pages[index], there, removal: removals[index])
                if ready.reduce(0, { $0 + $1.bytes }) >= Self.bytesAtATime { faults += send() }
            case .failure(let fault): faults.append((offers[index], fault))
            }
        }
        let isReachable = faults.count < heads.count
        faults += send()
        if isReachable, sent == 0, queue.state.withLock({ $0.writes.reason }) != .full { resume() }
        settle(faults, isAllFailed: sent == 0 ? !isReachable : taken == 0)
    }

    /// Seals a page, unless one that serves as well is there or this one does not travel.
    private mutating func prepare(
        _ offer: WriteBehind.Offer, _ page: PageName, _ bytes: [UInt8], removal: UInt64?
    ) {
        let there: PageHead?
        do throws(SharedValue.Fault) {
            there = bytes.isEmpty ? nil : try SharedValue.head(of: bytes, key: page.key)
        } catch {
            queue.tally.count { tally in
                tally.count(error)
                // A later release, which had its reasons, may read this one's values but not the other way round.
                if error == .newer { tally.known += 1 }
            }
            if error == .newer { return }
            there = nil
        }
        var value: [UInt8]?
        var head: PageHead?
        _ = queue.readBlock(offer.key) { block, attributes in
            head = PageHead(block: block, attributes: attributes)
            guard let head, there?.serves(insteadOf: head) != true else { return }
            value = SharedValue.seal(block, head, key: page.key, encrypts: queue.settings.encrypts)
        }
        guard let head else { return }
        guard let value else {
            queue.tally.count { $0.known += 1 }
            if head.attributes.ttl > 0 { queue.servers.renew(page.name, seconds: head.attributes.ttl) }
            return
        }
        let ttl = head.attributes.ttl
        let command = RedisCommand.set(page.name, value, milliseconds: ttl > 0 ? Int(ttl) * 1000 : nil)
        ready.append((offer, command, value.count, removal))
    }

    /// Sends what is ready, as the budget allows; what was not taken.
    private mutating func send() -> [(offer: WriteBehind.Offer, fault: RedisFault)] {
        defer { ready = [] }
        guard !ready.isEmpty, waitForBudget(ready.reduce(0) { $0 + $1.bytes }) else { return [] }
        let results = queue.servers.exchange(ready.map(\.command), milliseconds: queue.settings.behindMilliseconds)
        var faults: [(WriteBehind.Offer, RedisFault)] = []
        sent += ready.count
        for (page, result) in zip(ready, results) {
            switch result {
            case .success:
                taken += 1
                if let removal = page.removal { queue.endRemoval(page.offer.key, removal) }
                written(page.offer.key)
                queue.tally.count { tally in
                    tally.writtenPages += 1
                    tally.writtenBytes += UInt64(page.bytes)
                }
            case .failure(let fault): faults.append((page.offer, fault))
            }
        }
        if faults.count < ready.count { resume() }
        return faults
    }

    /// False when it closes first.
    private func waitForBudget(_ bytes: Int) -> Bool {
        queue.budget.wait(bytes) { end in
            queue.state.update { $0.isShort = true }
            defer { queue.state.withLock { $0.isShort = false } }
            return queue.state.wait(until: end) { $0.isClosing ? true : nil } ?? false
        }
    }

    // MARK: Faults

    private func resume() {
        let wasPaused = queue.state.withLock { state in
            defer { state.writes.finish() }
            return state.writes.reason != nil
        }
        if wasPaused { queue.log(.writesResumed) }
    }

    /// Keeps what failed for later, or lets it go.
    private func settle(_ faults: [(offer: WriteBehind.Offer, fault: RedisFault)], isAllFailed: Bool) {
        guard !faults.isEmpty else { return }
        // A cluster without memory would hardly have some when these come again.
        let full = faults.filter { $0.fault == .full }.count
        var lost = full
        let pausedFor = queue.state.update { state -> RedisFault? in
            guard !state.isClosing else { return nil }
            for (offer, fault) in faults where fault != .full {
                var offer = offer
                if !isAllFailed { offer.attempts += 1 }
                guard offer.attempts < Self.attempts, state.offers.count < WriteBehind.mostWaiting,
                    state.offered.insert(offer.key).inserted
                else {
                    lost += 1
                    continue
                }
                state.offers.append(offer)
            }
            guard isAllFailed || full > 0 else { return nil }
            let fault = full > 0 ? .full : faults[0].fault
            defer { state.writes.begin(fault, at: MonotonicClock.nanoseconds) }
            return state.writes.reason == nil ? fault : nil
        }
        if let pausedFor { queue.log(.writesPaused(pausedFor)) }
        queue.tally.count { [lost] tally in
            tally.heldBack.fault += UInt64(lost)
            for (_, fault) in faults { tally.count(fault) }
        }
    }
}
