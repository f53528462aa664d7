import KVTCModel
import struct KVTCStore.StoreKey

/// What an encode job has to do.
package struct EncodePlan {
    package var generation: UInt64
    package var context: CodingContext
    package var choice: CodingChoice
    package var protected: RowSet
}

/// Which pages sessions use, which of their rows are protected, and which pages may be coded now. Pure bookkeeping: it
/// touches neither store nor codec, and the engine keeps it behind a lock.
package struct Ledger {
    package private(set) var sessions: [UInt32: Session] = [:]
    package private(set) var pages: [StoreKey: LedgerPage] = [:]
    /// When pages are coded whose sessions leave that to the daemon.
    package var code = CodingTime.atOnce
    var waiting = WaitingPages()
    /// When there was the last request of any session, in nanoseconds.
    package internal(set) var lastUse: UInt64 = 0
    private var generations: UInt64 = 0
    /// The last number given; nil where they are random.
    private var lastSession: UInt32?

    /// Numbers sessions one by one, so that a simulation repeats itself, or at random: then no tenant can count those of others.
    package init(numbersAtRandom: Bool = false) { lastSession = numbersAtRandom ? nil : 0 }

    /// Opens a session under a new number.
    package mutating func open(_ make: (UInt32) -> Session) -> UInt32 {
        var id: UInt32
        repeat {
            // Short ones, as people type them.
            id = lastSession.map { $0 + 1 } ?? .random(in: 1...9_999_999)
            if lastSession != nil { lastSession = id }
        } while sessions[id] != nil
        sessions[id] = make(id)
        return id
    }

    package mutating func change(_ id: UInt32, _ body: (inout Session) -> Void) {
        if sessions[id] != nil { body(&sessions[id]!) }
    }

    package mutating func setPhase(_ key: StoreKey, _ phase: LedgerPage.Phase) { pages[key]?.phase = phase }

    mutating func forget(_ key: StoreKey) { pages[key] = nil }

    /// Notes a page that a session pushed. `coded` is nil for one that was just stored, raw or as a block, else whether the one
    /// that was there before is coded. Where the push goes back, the session no longer has what followed. Rows in `retaining` stay exact,
    /// whichever session asked for that.
    ///
    /// Gives the pages that no window holds any more; they count as queued.
    package mutating func pushed(
        _ id: UInt32, key: StoreKey, first: Int, tokens: Int, coded: Bool?, isBlock: Bool = false,
        retaining: RowSet? = nil
    ) -> [StoreKey] {
        guard let context = sessions[id]?.context,
            let left = sessions[id]?.place(SessionPage(key: key, first: first, tokens: tokens))
        else { return coded == nil ? renewed(key, tokens: tokens, isBlock, retaining: retaining) : [] }
        leave(id, left, isOver: false)
        let before = pages[key]
        if coded == nil || before?.tokens != tokens {
            generations += 1
            // A record of an earlier page under the same key describes bytes that are gone, but for who relies on the key.
            var page = LedgerPage(
                generation: generations, tokens: tokens, context: context,
                phase: coded == true || isBlock ? .coded(nil) : .raw, retained: RowSet(count: tokens), owner: id)
            if let before {
                (page.users, page.retainedChoice, page.near) = (before.users, before.retainedChoice, before.near)
                page.retainedTime = before.retainedTime
                page.retained = before.tokens == tokens ? before.retained : RowSet.full(tokens)
            }
            if let retaining { page.retained.formUnion(retaining) }
            pages[key] = page
        }
        if let other = pages[key]?.users[id], other != first {
            // Twice in one stream: which rows are protected here and which there is not counted.
            pages[key]?.retained = RowSet.full(tokens)
        } else {
            pages[key]?.users[id] = first
        }
        return released(id) + queued([key]) + queued(left.map(\.key))
    }

    /// Notes other bytes under a key whose pusher's session has ended meanwhile: they belong to no session but those that rely on the key.
    private mutating func renewed(
        _ key: StoreKey, tokens: Int, _ isBlock: Bool, retaining: RowSet?
    ) -> [StoreKey] {
        guard let before = pages[key] else { return [] }
        generations += 1
        var page = LedgerPage(
            generation: generations, tokens: tokens, context: before.context,
            phase: isBlock ? .coded(nil) : .raw,
            retained: before.tokens == tokens ? before.retained : RowSet.full(tokens), owner: before.owner)
        (page.users, page.retainedChoice, page.near) = (before.users, before.retainedChoice, before.near)
        page.retainedTime = before.retainedTime
        if let retaining { page.retained.formUnion(retaining) }
        pages[key] = page.isCoded && page.users.isEmpty ? nil : page
        return queued([key])
    }

    /// Cuts a session's end: pages that end behind `tokens` leave it, and it goes on from the end of what is left. Gives the
    /// pages that left, and those that no window holds any more; these count as queued.
    package mutating func truncate(_ id: UInt32, to tokens: Int) -> (left: [StoreKey], ready: [StoreKey]) {
        guard let left = sessions[id]?.cut(at: tokens) else { return ([], []) }
        leave(id, left, isOver: false)
        let keys = left.map(\.key)
        return (keys, queued(keys))
    }

    /// The pages that left the session's window, that no other session's window holds and that do not wait; they count as queued.
    mutating func released(_ id: UInt32) -> [StoreKey] {
        guard let session = sessions[id] else { return [] }
        let begin = session.windowBegin
        let end = session.pages[session.released...].firstIndex { $0.end > begin } ?? session.pages.count
        guard end > session.released else { return [] }
        let keys = session.pages[session.released..<end].map(\.key)
        sessions[id]?.released = end
        return queued(keys)
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

    /// What does for everybody: the pusher's choice, made stricter where others ask for more.
    func choice(_ page: LedgerPage) -> CodingChoice {
        func choice(of id: UInt32) -> CodingChoice? { sessions[id].map { CodingChoice($0.policy) } }
        let pusher = page.users[page.owner] == nil ? nil : choice(of: page.owner)
        let users = page.users.keys.sorted().map(choice)
        return CodingChoice.joined([nearChoice(page), pusher, page.retainedChoice] + users) ?? .lossless
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
        /// Put the block in the raw one's place, then call ``endReplace(_:generation:coded:outcome:)``.
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
        guard union == plan.protected, choice(page) == plan.choice else {
            pages[key]?.phase = .queued
            return .again
        }
        pages[key]?.phase = .replacing
        return .replace
    }

    /// Ends what ``endEncode(_:_:)`` allowed. `coded` nil: it could not be coded and stays as it is, bit-identical. Gives the
    /// sessions that are seen to drift from their profile with this page.
    @discardableResult
    package mutating func endReplace(
        _ key: StoreKey, generation: UInt64, coded: CodedPage?, outcome: CodingOutcome? = nil
    ) -> [Session] {
        guard let page = pages[key], page.generation == generation else { return [] }
        pages[key]?.phase = .coded(coded ?? CodedPage(exact: .full(page.tokens), mode: .raw))
        if page.users.isEmpty { pages[key] = nil }
        return outcome.map { count($0, for: page.users.keys.sorted()) } ?? []
    }

    /// Counts how a page came out of its coder for sessions that use it. Gives those that are seen to drift with it.
    package mutating func count(_ outcome: CodingOutcome, for users: [UInt32]) -> [Session] {
        users.compactMap { id in
            sessions[id]?.tally.add(outcome)
            return sessions[id]?.drift.add(outcome.excess) == true ? sessions[id] : nil
        }
    }

    /// Whether the page may be coded now, by its coder or by who pushes a block of it.
    package func isFree(_ key: StoreKey) -> Bool { pages[key].map { !isInAnyWindow($0) } ?? true }

    /// Whether a block does for all who rely on the page, now and for good.
    package func isEnough(_ block: CodedPage, for key: StoreKey) -> Bool {
        guard let page = pages[key] else { return true }
        guard page.tokens == block.exact.capacity else { return false }
        return choice(page).isMet(by: block) && block.exact.isSuperset(of: protectedRows(page))
    }

    /// A job that failed: the page stays raw for good.
    package mutating func giveUp(_ key: StoreKey, _ plan: EncodePlan) {
        endReplace(key, generation: plan.generation, coded: nil)
    }

    /// Whether nothing is just taking the place of one of the pages. A push, drop or change of policy waits for
    /// that: it would take the place of what is there then.
    package func isSettled(_ keys: some Sequence<StoreKey>) -> Bool {
        !keys.contains { pages[$0]?.phase == .replacing }
    }

    /// The pages that a session has.
    package func keys(of id: UInt32) -> [StoreKey] { sessions[id]?.pages.map(\.key) ?? [] }

    /// Whether a page waits for its coder or is with it.
    package func isPending(_ key: StoreKey) -> Bool {
        switch pages[key]?.phase {
        case .queued, .encoding, .replacing: true
        default: false
        }
    }

    /// Forgets pages that are gone from the store. Sessions whose last pages they are go on from the end of what is left.
    package mutating func drop(_ keys: some Collection<StoreKey>) {
        let gone = Set(keys)
        var users: Set<UInt32> = []
        for key in gone {
            if let page = pages.removeValue(forKey: key) { users.formUnion(page.users.keys) }
        }
        for id in users { sessions[id]?.remove(gone) }
    }

    /// Forgets every page of a tenant, also those that its sessions have and the store lost: they begin anew.
    package mutating func dropAll(tenant: UInt32) {
        pages = pages.filter { $0.key.tenant != tenant }
        for id in sessions.keys where sessions[id]?.tenant == tenant { _ = sessions[id]?.cut(at: 0) }
    }

    /// The pages of a tenant's sessions.
    package func keys(ofTenant tenant: UInt32) -> [StoreKey] { pages.keys.filter { $0.tenant == tenant } }

    /// Whether a session has the page.
    package func isUsed(_ key: StoreKey) -> Bool { pages[key]?.users.isEmpty == false }

    /// The raw pages of which something must stay exact when the session ends.
    package func pagesToRetain(of id: UInt32) -> [StoreKey] {
        guard let session = sessions[id] else { return [] }
        let (protection, isExact) = (session.protection, CodingChoice(session.policy).mode.isExact)
        return session.pages.filter { entry in
            guard let page = pages[entry.key], !page.isCoded else { return false }
            return isExact || !protection.rows(first: entry.first, tokens: entry.tokens, window: true).isEmpty
        }.map(\.key)
    }

    /// Ends a session. What it protected stays exact. Gives the pages that may be coded now; they count as queued.
    package mutating func close(_ id: UInt32) -> [StoreKey] {
        guard let session = sessions[id] else { return [] }
        leave(id, session.pages[...], isOver: true)
        sessions[id] = nil
        return queued(session.pages.map(\.key))
    }

    /// A session no longer has pages. What its policy keeps exact at their positions stays so, and when it is over the rows of its
    /// window, too; those of a window that has gone back do not.
    private mutating func leave(_ id: UInt32, _ left: ArraySlice<SessionPage>, isOver: Bool) {
        guard !left.isEmpty, let session = sessions[id]?.withoutPages else { return }
        let (protection, choice) = (session.protection, CodingChoice(session.policy))
        for entry in left {
            guard var page = pages[entry.key], page.users[id] == entry.first else { continue }
            page.users[id] = nil
            let isInWindow = isOver && entry.end > protection.windowBegin
            let near = isInWindow ? CodingChoice.near(session.policy) : nil
            page.retained.formUnion(
                protection.rows(first: entry.first, tokens: page.tokens, window: isInWindow && near == nil))
            page.near = CodingChoice.strictest([page.near, near])
            let asked = [choice, page.retainedChoice]
            page.retainedChoice = CodingChoice.joined(page.owner == id ? asked : asked.reversed())
            page.retainedTime = CodingTime.soonest([page.retainedTime, session.policy.code ?? code])
            pages[entry.key] = page.isCoded && page.users.isEmpty ? nil : page
        }
    }
}
