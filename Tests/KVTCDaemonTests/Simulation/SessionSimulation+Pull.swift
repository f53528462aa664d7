import KVTCModel
import KVTCProtocol
import KVTCStore
import TestSupport

@testable import KVTCDaemon

// Pages come back, as they were promised to whoever asks.
extension SessionSimulation {
    /// A session of a connection of its own that takes any coding.
    mutating func pull(_ page: PageID) throws {
        let caller = newCaller(page.tenant)
        let reader = try open(page.model, Policy(sink: 0, window: 0, mode: .quant4), caller)
        let failures = plan.total
        let (back, outcome) = try pull(page, reader, asStored: chance(3))
        engine.connectionEnded(caller.connection)
        guard let back else {
            let isExcused = plan.total > failures || known[page]?.isThere != true || mayExpire(page)
            return try require(outcome == .miss && isExcused, "\(page) is a \(outcome)")
        }
        try check(page, back) { known[page]?.exact[$0] == true }
    }

    /// A session gets what it was promised, or nothing.
    mutating func pullAsItself() throws {
        guard let session = sessions.randomElement(using: &generator),
            let page = session.pages.randomElement(using: &generator)
        else { return }
        try requireStranger(to: session)
        let failures = plan.total
        let (back, outcome) = try pull(page, session, asStored: chance(3))
        let exact = known[page]?.exact
        guard let back else {
            let isWorse =
                session.policy.mode == .quant8 || (0..<page.tokens).contains { session.keeps(page.first + $0) }
            // Under a lease its end does not matter.
            let isLeased = session.lease.map { $0.pages.contains(page) && elapsed < $0.end } ?? false
            let isExcused =
                plan.total > failures || known[page]?.isThere != true || !isLeased && mayExpire(page)
                || isWorse && exact?.contains(false) == true
            return try require(outcome == .miss && isExcused, "\(page) is a \(outcome) to its session")
        }
        try check(page, back) { exact?[$0] == true || session.keeps(page.first + $0) }
    }

    /// To another tenant a session is none.
    private mutating func requireStranger(to session: LiveSession) throws {
        let stranger = newCaller(3 - session.caller.tenant)
        let isNone = (try? engine.getPolicy(GetPolicyRequest(session: session.id), stranger)) == nil
        try require(isNone, "session \(session.id) answers to a stranger")
    }

    private func pull(
        _ page: PageID, _ session: LiveSession, asStored: Bool
    ) throws -> ([UInt8]?, PullOutcome) {
        let request = PullRequest(
            session: session.id, lease: session.lease?.id ?? 0, arena: Wire.none,
            entries: [PullEntry(key: page.key, offset: 0, capacity: 1 << 20)])
        var back: [UInt8]?
        var outcome = PullOutcome.hit
        _ = try engine.pull(request, asStored: asStored, arena: nil, session.caller) {
            (ready: ReadyPart) throws(Never) in
            outcome = ready.part.outcome
            if outcome == .hit { ready.bytes.withBytes { back = Array($0) } }
        }
        return (asStored ? try back.map(page.decoded) : back, outcome)
    }

    private func check(_ page: PageID, _ back: [UInt8], isExact: (Int) -> Bool) throws {
        try require(back.count == page.bytes.count, "\(page) has \(back.count) bytes")
        let isBad = known[page].map(\.isBad) ?? (everBad.contains(page) ? nil : false)
        func fault(isBad: Bool) -> String? {
            let bytes = isBad ? page.badBytes : page.bytes
            for row in 0..<page.tokens {
                let (before, after) = (Pages.row(bytes, row), Pages.row(back, row))
                if before == after { continue }
                if isExact(row) { return "row \(row) of \(page) is protected and not exact" }
                if isBad, row == PageID.badRow { return "row \(row) of \(page) is not finite and not exact" }
                if !Pages.areNear(before, after) { return "row \(row) of \(page) has other values" }
            }
            return nil
        }
        let faults = (isBad.map { [$0] } ?? [false, true]).map { fault(isBad: $0) }
        try require(faults.contains(nil), faults.compactMap(\.self).first ?? "")
    }
}
