import KVTCProtocol
import KVTCStore
import TestSupport

@testable import KVTCDaemon

// Pages come in.
extension SessionSimulation {
    /// The pages of a push: mostly the next ones of the stream; now and then another way for it to go on, with or without the
    /// pages before that, some that were there, or such that leave a gap. A tail may be short, and grows with the next push.
    private mutating func pagesToPush(_ session: inout LiveSession) -> [PageID] {
        let next = session.pages.last.map { $0.isShort ? $0.index : $0.index + 1 } ?? 0
        var (begin, before) = (next, [PageID]())
        switch Int.random(in: 0..<10, using: &generator) {
        case 0, 1:
            begin = .random(in: 0...next, using: &generator)
            session.branch = .random(in: 0..<3, using: &generator)
            if Bool.random(using: &generator) { before = session.pages.filter { $0.end <= begin * Self.tokens } }
        case 2:
            let first = Int.random(in: 0...next, using: &generator)
            return session.pages.filter { $0.index >= first }
        case 3: begin = next + 1
        default: break
        }
        let end = begin + Int.random(in: 1...3, using: &generator)
        var pages = (begin..<max(begin, min(end, Self.pages))).map {
            PageID(tenant: session.caller.tenant, model: session.model, index: $0, branch: session.branch)
        }
        if !pages.isEmpty, chance(4) { pages[pages.count - 1].isShort = true }
        return before + pages
    }

    mutating func push() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return try openSession() }
        var session = sessions[at]
        let pages = pagesToPush(&session)
        sessions[at] = session
        let areBad = pages.map { _ in chance(12) }
        var inline: [UInt8] = []
        let entries = zip(pages, areBad).map { page, isBad in
            let bytes = isBad ? page.badBytes : page.bytes
            defer { inline += bytes }
            return PushEntry(
                key: page.key, firstPosition: UInt32(page.first), tokens: UInt32(page.tokens),
                offset: UInt64(inline.count), length: UInt64(bytes.count))
        }
        let before = plan.total
        let request = PushRequest(session: session.id, arena: Wire.none, entries: entries, inline: inline[...])
        for (page, isBad) in zip(pages, areBad) where isBad { everBad.insert(page) }
        let outcomes = try engine.push(request, arena: nil, session.caller).outcomes
        guard !plan.hasCrashed else {
            guard let ends = end(of: session.policy) else { return }
            for page in pages { known[page, default: Known(page)].setEnd(ends) }
            return
        }
        // Of pages under a key that was there and of the same kind before: what had NaN stays what it was.
        let came = zip(pages, zip(areBad, outcomes)).filter { page, push in
            push.1 != .full && (!push.0 || known[page]?.isBad == true)
        }.map(\.0)
        for (page, (isBad, outcome)) in zip(pages, zip(areBad, outcomes)) {
            try note(page, isBad, outcome, at)
        }
        if outcomes.contains(.full) {
            // What found no room to take the place of a lossy page is in the session, which has that one.
            sessions[at].pages = (sessions[at].pages + pages.filter { !sessions[at].pages.contains($0) }).sorted {
                ($0.first, $0.end) < ($1.first, $1.end)
            }
        }
        try follow(isFree: outcomes.contains(.full))
        // Whatever was there: what is protected now came with this push.
        if plan.total == before {
            for page in came where sessions[at].pages.contains(page) {
                for row in 0..<page.tokens where sessions[at].protects(page.first + row) {
                    known[page]?.exact[row] = true
                }
            }
        }
        narrow()
    }

    /// What the outcome says of a page.
    private mutating func note(_ page: PageID, _ isBad: Bool, _ outcome: PushOutcome, _ at: Int) throws {
        let isDisturbed = plan.total > faultsAtStart
        guard outcome != .full else { return try require(isDisturbed, "\(page) finds no room") }
        var state = known[page] ?? Known(page)
        let isSure = state.isThere && !mayExpire(page)
        let isExact = !state.exact.contains(false)
        let expected: [PushOutcome] =
            switch (state.isThere, state.isBad, isBad) {
            case (false, _, _), (true, true?, _): [isBad ? .nonFinite : .stored]
            case (true, false?, true): [.present]
            case (true, false?, false): isExact ? [.present] : [.present, .stored]
            case (true, nil, _): [.present, isBad ? .nonFinite : .stored]
            }
        try require(
            expected.contains(outcome) || (isDisturbed || !isSure) && outcome != .tooLarge,
            "\(page), \(isBad ? "bad" : "good"), came to \(outcome) over \(state)")
        let ends = end(of: sessions[at].policy)
        // What is not finite takes the place of its like only where rows of that are to be exact, and then it is the same.
        let isLike = state.isThere && isBad && state.isBad != false
        if outcome != .present, !isLike {
            let isOver = isSure && state.isBad != nil
            var now = Known(page)
            if isOver { (now.retained, now.lasting) = (state.retained, state.lasting) }
            (now.isBad, now.end, now.earliestEnd) = (isBad, state.end, state.earliestEnd)
            now.exact = [Bool](repeating: true, count: page.tokens)
            state = now
        } else if !state.isThere {
            state.isBad = everBad.contains(page) ? nil : false
        }
        settle(page, state, end: ends, isSure: isSure, at)
    }

    /// Notes a page that a push has left there, and the end that the push asks for; the session at `at` has the page from here on.
    mutating func settle(_ page: PageID, _ pushed: Known, end ends: UInt64?, isSure: Bool, _ at: Int) {
        var state = pushed
        if !isSure {
            // It may be there all the same, with an end that is nearer.
            state.setEnd([state.end, ends].compactMap(\.self).min())
        } else if let old = state.end {
            // A push never brings the end of what is there nearer.
            state.setEnd(ends.map { max(old, $0) })
        }
        state.isThere = true
        known[page] = state
        leave(sessions[at], sessions[at].place(page))
    }
}
