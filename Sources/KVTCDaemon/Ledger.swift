import KVTCCodec
import KVTCProtocol
import KVTCStore

/// What an encode job has to do.
package struct EncodePlan {
    package var generation: UInt64
    package var context: CodingContext
    package var choice: CodingChoice
    package var protected: RowSet
}

/// A page that a session uses or that waits for its coder.
package struct LedgerPage {
    package enum Phase: Equatable {
        /// Not coded and not asked for.
        case raw
        /// An encode job was asked for.
        case queued
        /// The job runs.
        case encoding
        /// The coded block takes the raw one's place right now.
        case replacing
        /// Coded. The set says which rows are exact; nil when nobody has looked yet.
        case coded(exact: RowSet?)
    }

    package let generation: UInt64
    package let tokens: Int
    package let context: CodingContext
    package var phase: Phase
    /// The sessions that use it, with the position of its first token in each.
    package var users: [UInt32: Int] = [:]
    /// Rows that sessions which are over by now protected until their end.
    package var retained: RowSet
    /// The strictest choice of the sessions that are over, the pusher's when they agree.
    package var promised: CodingChoice?
    /// The strictest wish of the sessions that are over and had it in their window.
    package var near: CodingChoice?
    /// The session that pushed it.
    package var owner: UInt32

    package var isCoded: Bool { if case .coded = phase { true } else { false } }
}

/// Which pages sessions use, which of their rows are protected, and which pages may be coded now. Pure bookkeeping: it
/// touches neither store nor codec, and the engine keeps it behind a lock.
package struct Ledger {
    package private(set) var sessions: [UInt32: Session] = [:]
    package private(set) var pages: [StoreKey: LedgerPage] = [:]
    private var generations: UInt64 = 0
    private var lastSession: UInt32 = 0

    package init() {}

    /// Opens a session under a new number.
    package mutating func open(_ make: (UInt32) -> Session) -> UInt32 {
        repeat { lastSession = lastSession == Wire.none - 1 ? 1 : lastSession + 1 } while sessions[lastSession] != nil
        sessions[lastSession] = make(lastSession)
        return lastSession
    }

    package mutating func change(_ id: UInt32, _ body: (inout Session) -> Void) {
        if sessions[id] != nil { body(&sessions[id]!) }
    }

    package mutating func setPhase(_ key: StoreKey, _ phase: LedgerPage.Phase) { pages[key]?.phase = phase }

    mutating func forget(_ key: StoreKey) { pages[key] = nil }

    /// Carries over to a record of the same page what sessions had to do with the one before.
    mutating func resume(_ key: StoreKey, _ before: LedgerPage) {
        pages[key]?.users.merge(before.users) { $1 }
        pages[key]?.retained.formUnion(before.retained)
        pages[key]?.promised = before.promised
        pages[key]?.near = before.near
    }

    /// The index of the first pushed entry that goes backwards or overlaps, given which are there already. Entries that
    /// are there may lie anywhere.
    package func conflict(_ id: UInt32, _ entries: [(first: Int, tokens: Int, present: Bool)]) -> Int? {
        var end = sessions[id]?.tokens ?? 0
        for (index, entry) in entries.enumerated() {
            if !entry.present, entry.first < end { return index }
            end = max(end, entry.first + entry.tokens)
        }
        return nil
    }

    /// Notes a page that a session pushed. `coded` is nil for one that was just stored raw, else whether the one that
    /// was there before is coded.
    package mutating func pushed(_ id: UInt32, key: StoreKey, first: Int, tokens: Int, coded: Bool?) {
        guard let context = sessions[id]?.context else { return }
        if coded == nil || pages[key] == nil {
            generations += 1
            // A record of an earlier page under the same key describes bytes that are gone.
            pages[key] = LedgerPage(
                generation: generations, tokens: tokens, context: context,
                phase: coded == true ? .coded(exact: nil) : .raw, retained: RowSet(count: tokens), owner: id)
        }
        // A page of other length under a known key is the client's mistake; the stored one counts.
        guard pages[key]?.tokens == tokens else { return }
        if pages[key]?.users[id] == nil,
            sessions[id]?.insert(SessionPage(key: key, first: first, tokens: tokens)) == true
        {
            pages[key]?.users[id] = first
        }
        sessions[id]?.advance(to: first + tokens)
    }

    /// The pages that left the session's window and that no other session's window holds; they count as queued.
    package mutating func release(_ id: UInt32) -> [StoreKey] {
        guard var session = sessions[id] else { return [] }
        var ready: [StoreKey] = []
        let begin = session.windowBegin
        while session.released < session.pages.count, session.pages[session.released].end <= begin {
            let key = session.pages[session.released].key
            session.released += 1
            if queue(key) { ready.append(key) }
        }
        sessions[id] = session
        return ready
    }

    /// Queues a page, if it is raw and no window holds it.
    package mutating func queue(_ key: StoreKey) -> Bool {
        guard let page = pages[key], page.phase == .raw, !isInAnyWindow(page) else { return false }
        pages[key]?.phase = .queued
        return true
    }

    private func isInAnyWindow(_ page: LedgerPage) -> Bool {
        page.users.contains { id, first in
            sessions[id].map { !$0.isIdle && first + page.tokens > $0.windowBegin } ?? false
        }
    }

    /// Rows that must stay exact when the page is coded now.
    private func protectedRows(_ page: LedgerPage) -> RowSet {
        var rows = page.retained
        for (id, first) in page.users {
            if let session = sessions[id] {
                rows.formUnion(session.protection.rows(first: first, tokens: page.tokens, window: false))
            }
        }
        return rows
    }

    private func choice(_ page: LedgerPage) -> CodingChoice {
        let users = page.users.keys.sorted().compactMap { sessions[$0].map { CodingChoice($0.policy) } }
        let wishes = users + [page.promised].compactMap(\.self)
        // The strictest wish wins, else the pusher's.
        if let exact = wishes.first(where: \.mode.isExact) { return exact }
        if let near = nearChoice(page) { return near }
        return sessions[page.owner].map { CodingChoice($0.policy) } ?? page.promised ?? users[0]
    }

    /// Starts a queued job. Nil when the page is gone, or a window has taken it back meanwhile.
    package mutating func beginEncode(_ key: StoreKey) -> EncodePlan? {
        guard let page = pages[key], page.phase == .queued else { return nil }
        guard !isInAnyWindow(page) else {
            pages[key]?.phase = .raw
            return nil
        }
        pages[key]?.phase = .encoding
        return EncodePlan(
            generation: page.generation, context: page.context, choice: choice(page), protected: protectedRows(page))
    }

    /// What to do with a finished encode job.
    package enum EncodeVerdict: Equatable {
        /// Put the block in the raw one's place, then call ``endReplace(_:generation:exact:)``.
        case replace
        /// Protection grew meanwhile; the page was queued again.
        case again
        /// A window took the page back, or it is gone: forget the block.
        case forget
    }

    /// Decides about a finished job by what is protected now, not by what was when it began.
    package mutating func endEncode(_ key: StoreKey, _ plan: EncodePlan) -> EncodeVerdict {
        guard let page = pages[key], page.generation == plan.generation, page.phase == .encoding else { return .forget }
        if isInAnyWindow(page) {
            pages[key]?.phase = .raw
            return .forget
        }
        let wanted = protectedRows(page)
        var union = plan.protected
        union.formUnion(wanted)
        let now = choice(page)
        guard union == plan.protected, now.mode.isExact == plan.choice.mode.isExact,
            now.near ?? .infinity >= plan.choice.near ?? .infinity
        else {
            pages[key]?.phase = .queued
            return .again
        }
        pages[key]?.phase = .replacing
        return .replace
    }

    /// Ends what ``endEncode(_:_:)`` allowed. `exact` nil: it could not be coded and stays as it is, bit-identical. Gives the
    /// sessions that are seen to drift from their profile with this page.
    @discardableResult
    package mutating func endReplace(
        _ key: StoreKey, generation: UInt64, exact: RowSet?, outcome: CodingOutcome? = nil
    ) -> [Session] {
        guard let page = pages[key], page.generation == generation else { return [] }
        let all = RowSet.full(page.tokens)
        pages[key]?.phase = .coded(exact: exact ?? all)
        if page.users.isEmpty { pages[key] = nil }
        guard let outcome else { return [] }
        return page.users.keys.sorted().compactMap { id in
            sessions[id]?.tally.add(outcome)
            return sessions[id]?.drift.add(outcome.excess) == true ? sessions[id] : nil
        }
    }

    /// A job that failed: the page stays raw for good.
    package mutating func giveUp(_ key: StoreKey, _ plan: EncodePlan) {
        endReplace(key, generation: plan.generation, exact: nil)
    }

    /// Whether a coded block is being put in place; dropping has to wait for that.
    package func isReplacing(_ key: StoreKey) -> Bool { pages[key]?.phase == .replacing }

    /// Whether a page waits for its coder or is with it.
    package func isPending(_ key: StoreKey) -> Bool {
        switch pages[key]?.phase {
        case .queued, .encoding, .replacing: true
        default: false
        }
    }

    /// Forgets pages that are gone from the store. When the client dropped them (`isTruncation`), sessions go on from
    /// the end of what is left; a page that was lost otherwise leaves a gap.
    package mutating func drop(_ keys: some Collection<StoreKey>, isTruncation: Bool) {
        let gone = Set(keys)
        var users: Set<UInt32> = []
        for key in gone {
            if let page = pages.removeValue(forKey: key) { users.formUnion(page.users.keys) }
        }
        for id in users {
            guard var session = sessions[id] else { continue }
            session.pages.removeAll { gone.contains($0.key) }
            session.released = 0
            if isTruncation { session.tokens = session.pages.last?.end ?? 0 }
            sessions[id] = session
        }
    }

    /// The raw pages of which something must stay exact when the session ends.
    package func promises(of id: UInt32) -> [StoreKey] {
        guard let session = sessions[id] else { return [] }
        let (protection, isExact) = (session.protection, CodingChoice(session.policy).mode.isExact)
        return session.pages.filter { entry in
            guard let page = pages[entry.key], !page.isCoded else { return false }
            return isExact || !protection.rows(first: entry.first, tokens: entry.tokens, window: true).isEmpty
        }.map(\.key)
    }

    /// Ends a session. What it protected stays exact. Gives the pages that may be coded now; they count as queued.
    package mutating func close(_ id: UInt32) -> [StoreKey] {
        guard let session = sessions.removeValue(forKey: id) else { return [] }
        let protection = session.protection
        var ready: [StoreKey] = []
        for entry in session.pages {
            guard var page = pages[entry.key], page.users.removeValue(forKey: id) != nil else { continue }
            let near = entry.end > protection.windowBegin ? CodingChoice.near(session.policy) : nil
            page.retained.formUnion(protection.rows(first: entry.first, tokens: entry.tokens, window: near == nil))
            page.near = CodingChoice.strictest([page.near, near])
            let choice = CodingChoice(session.policy)
            if page.promised?.mode.isExact != true, choice.mode.isExact || page.owner == id || page.promised == nil {
                page.promised = choice
            }
            let isOver = page.isCoded && page.users.isEmpty
            pages[entry.key] = isOver ? nil : page
            if queue(entry.key) { ready.append(entry.key) }
        }
        return ready
    }
}

extension RowSet {
    package static func full(_ count: Int) -> RowSet {
        var rows = RowSet(count: count)
        rows.insert(0..<count)
        return rows
    }
}

extension BlockHeader {
    /// Rows that come back bit-identical.
    var exactRows: RowSet { mode.isExact ? RowSet.full(tokens) : protected }
}
