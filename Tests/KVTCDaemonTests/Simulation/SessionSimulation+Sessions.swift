import KVTCModel
import KVTCProtocol
import KVTCStore
import TestSupport

@testable import KVTCDaemon

// Sessions come and go, change their policies, and are compared with the engine's.
extension SessionSimulation {
    mutating func randomPolicy() -> Policy {
        let begin = UInt32.random(in: 0..<90, using: &generator)
        return Policy(
            sink: [0, 3, 20].randomElement(using: &generator)!,
            window: [0, 20, 40, 1000].randomElement(using: &generator)!,
            mode: [.lossless, .quant8, .quant4].randomElement(using: &generator)!,
            ttlSeconds: chance(6) ? 2 : 0,
            protected: Bool.random(using: &generator) ? [] : [PositionRange(begin: begin, end: begin + 5)],
            code: [nil, .atOnce, .idle, .underPressure].randomElement(using: &generator)!)
    }

    mutating func newCaller(_ tenant: UInt32) -> Caller {
        connections += 1
        return Caller(tenant: tenant, connection: connections, isAdministrator: false)
    }

    mutating func open(_ model: Model, _ policy: Policy, _ caller: Caller) throws -> LiveSession {
        let request = Pages.request(policy: policy, tensors: model.tensors)
        let reply = try engine.openSession(request, identity: model.identity, caller)
        opened[caller.tenant, default: []].insert(model)
        return LiveSession(id: reply.session, caller: caller, model: model, policy: policy)
    }

    /// On a connection of its own or on that of another session.
    mutating func openSession() throws {
        let other = sessions.randomElement(using: &generator)
        let shared = chance(3) ? other?.caller : nil
        let caller = shared ?? newCaller(.random(in: 1...2, using: &generator))
        let model = Model.allCases.randomElement(using: &generator)!
        sessions.append(try open(model, randomPolicy(), caller))
    }

    mutating func setPolicy() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        let policy = randomPolicy()
        let before = plan.total
        let reply = try engine.setPolicy(
            SetPolicyRequest(session: sessions[at].id, policy: policy), sessions[at].caller)
        if policy.ttlSeconds != sessions[at].policy.ttlSeconds {
            let ends = end(of: policy)
            for page in sessions[at].pages where !mayExpire(page) { known[page]?.setEnd(ends) }
        }
        sessions[at].policy = policy
        narrow()
        guard plan.total == before, !plan.hasCrashed else { return }
        // What it protects is exact or named.
        for page in sessions[at].pages {
            for row in 0..<page.tokens where sessions[at].protects(page.first + row) {
                let position = UInt32(page.first + row)
                if !reply.alreadyCoded.contains(where: { $0.begin <= position && position < $0.end }) {
                    known[page]?.exact[row] = true
                }
            }
        }
    }

    /// When a page that is pushed now under a policy is over; nil for never.
    func end(of policy: Policy) -> UInt64? {
        policy.ttlSeconds == 0 ? nil : elapsed + UInt64(policy.ttlSeconds) * 1000
    }

    mutating func close() throws {
        guard let at = sessions.indices.randomElement(using: &generator) else { return }
        if Bool.random(using: &generator) {
            _ = try disconnect(sessions[at].caller)
        } else {
            let session = sessions.remove(at: at)
            let faults = plan.total
            _ = try engine.closeSession(CloseSessionRequest(session: session.id), session.caller)
            try over(session, faults)
            narrow()
        }
    }

    /// A client connects again and opens its sessions again, which begin without pages.
    mutating func reconnect() throws {
        guard let session = sessions.randomElement(using: &generator) else { return }
        let ended = try disconnect(session.caller)
        guard !plan.hasCrashed else { return }
        let caller = newCaller(session.caller.tenant)
        for session in ended {
            var again = try open(session.model, session.policy, caller)
            again.branch = session.branch
            sessions.append(again)
        }
    }

    /// Gives the sessions that have ended.
    private mutating func disconnect(_ caller: Caller) throws -> [LiveSession] {
        let faults = plan.total
        engine.connectionEnded(caller.connection)
        let ended = sessions.filter { $0.caller.connection == caller.connection }
        sessions.removeAll { $0.caller.connection == caller.connection }
        for session in ended { try over(session, faults) }
        narrow()
        return ended
    }

    /// What a session protected at its end stays exact, as far as it was.
    private mutating func over(_ session: LiveSession, _ faults: Int) throws {
        for page in session.pages where known[page]?.isThere == true {
            for row in 0..<page.tokens where session.protects(page.first + row) && known[page]!.exact[row] {
                known[page]!.retained[row] = true
                if plan.total == faults, !plan.hasCrashed { known[page]!.lasting[row] = true }
            }
        }
        let isOver = (try? engine.getPolicy(GetPolicyRequest(session: session.id), session.caller)) == nil
        try require(isOver, "session \(session.id) is there after its end")
    }

    /// What a session that goes back keeps exact where it was stays so while the process lives, as far as it was.
    mutating func leave(_ session: LiveSession, _ left: [PageID]) {
        for page in left where known[page]?.isThere == true {
            for row in 0..<page.tokens where session.keeps(page.first + row) && known[page]!.exact[row] {
                known[page]!.retained[row] = true
            }
        }
    }

    /// Takes the rows back that nobody protects now: the page may be coded from here on.
    mutating func narrow() {
        for (page, state) in known {
            let users = sessions.filter { $0.pages.contains(page) }
            for row in 0..<page.tokens where state.exact[row] && !state.retained[row] {
                if !users.contains(where: { $0.protects(page.first + row) }) { known[page]!.exact[row] = false }
            }
        }
    }

    /// Compares the engine's sessions with the model's. A page that its coder found to be gone is no longer in any.
    mutating func follow(isFree: Bool = false) throws {
        guard !plan.hasCrashed else { return }
        for at in sessions.indices {
            let (pages, tokens) = engine.ledger.withLock { ledger in
                (ledger.sessions[sessions[at].id]?.pages ?? [], ledger.sessions[sessions[at].id]?.tokens)
            }
            let kept = sessions[at].pages.filter { page in
                pages.contains { $0.key == page.storeKey && $0.first == page.first && $0.tokens == page.tokens }
            }
            let gone = sessions[at].pages.filter { !kept.contains($0) }
            try require(
                isFree || kept.count == pages.count, "session \(sessions[at]) has other pages: \(pages.map(\.first))")
            for page in gone {
                let mayBeGone = known[page].map { !$0.isThere } ?? true
                try require(
                    isFree || mayBeGone || mayExpire(page) || plan.total > faultsAtStart, "\(page) has left a session")
            }
            sessions[at].pages = kept
            try require(isFree || tokens == sessions[at].tokens, "a session ends at \(tokens ?? -1)")
        }
        narrow()
    }
}
