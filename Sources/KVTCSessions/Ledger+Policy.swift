import KVTCModel
import struct KVTCStore.StoreKey

extension Ledger {
    /// Coded pages of the session that have not been looked at yet, as far as the policy protects any of their rows.
    package func unresolved(_ id: UInt32, under policy: Policy) -> [StoreKey] {
        guard let session = sessions[id] else { return [] }
        let protection = Protection(policy: policy, tokens: session.tokens)
        return session.pages.filter {
            pages[$0.key]?.phase == .coded(nil) && !policy.protectedRows($0, protection).isEmpty
        }.map(\.key)
    }

    /// What the coded page is, if that is known.
    package func coded(_ key: StoreKey) -> CodedPage? {
        guard case .coded(let page)? = pages[key]?.phase else { return nil }
        return page
    }

    /// Notes what a coded page is, as its header says.
    package mutating func resolve(_ key: StoreKey, _ coded: CodedPage) {
        guard pages[key]?.phase == .coded(nil), pages[key]?.tokens == coded.exact.capacity else { return }
        setPhase(key, .coded(coded))
    }

    /// What a new policy could not do any more, and what it sets free.
    package struct PolicyChange: Equatable {
        package var rawTokens: Int
        package var alreadyCoded: [Range<Int>]
        package var ready: [StoreKey]
    }

    /// Replaces a session's policy: a grown window takes raw pages back from the coder, a shrunk one releases them.
    package mutating func setPolicy(_ id: UInt32, _ policy: Policy) -> PolicyChange? {
        guard let session = sessions[id] else { return nil }
        change(id) {
            $0.policy = policy
            $0.released = 0
            $0.isIdle = false
        }
        stopWaiting(session.pages.map(\.key))
        let protection = Protection(policy: policy, tokens: session.tokens)
        var lost: [Range<Int>] = []
        for entry in session.pages {
            guard case .coded(let coded)? = pages[entry.key]?.phase else { continue }
            for row in policy.protectedRows(entry, protection).rows where coded?.exact.contains(row) != true {
                let position = entry.first + row
                if let last = lost.last, last.upperBound == position {
                    lost[lost.count - 1] = last.lowerBound..<position + 1
                } else {
                    lost.append(position..<position + 1)
                }
            }
        }
        let ready = released(id)
        return PolicyChange(rawTokens: rawTokens(id), alreadyCoded: lost, ready: ready)
    }

    /// Tokens of the session in pages that are not coded.
    package func rawTokens(_ id: UInt32) -> Int {
        sessions[id]?.pages.reduce(0) { $0 + (isRaw($1.key) ? $1.tokens : 0) } ?? 0
    }

    /// Pages of the session that are not coded.
    package func rawPages(_ id: UInt32) -> Int { sessions[id]?.pages.count { isRaw($0.key) } ?? 0 }

    private func isRaw(_ key: StoreKey) -> Bool { pages[key].map { !$0.isCoded } ?? false }
}

extension Policy {
    /// The rows of a page that come back bit-identical under the policy: all of them where the mode is lossless.
    fileprivate func protectedRows(_ page: SessionPage, _ protection: Protection) -> RowSet {
        CodingChoice(self).mode.isExact
            ? RowSet.full(page.tokens) : protection.rows(first: page.first, tokens: page.tokens, window: true)
    }
}
