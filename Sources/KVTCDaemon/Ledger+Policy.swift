import KVTCCodec
import KVTCProtocol
import KVTCStore

extension Ledger {
    /// Coded pages of the session of which nobody has looked yet which rows are exact.
    package func unresolved(_ id: UInt32) -> [StoreKey] {
        sessions[id]?.pages.map(\.key).filter { pages[$0]?.phase == .coded(exact: nil) } ?? []
    }

    /// Notes which rows of a coded page are exact, as its header says.
    package mutating func resolve(_ key: StoreKey, exact: RowSet) {
        guard pages[key]?.phase == .coded(exact: nil), pages[key]?.tokens == exact.capacity else { return }
        setPhase(key, .coded(exact: exact))
    }

    /// What a new policy could not do any more, and what it sets free.
    package struct PolicyChange: Equatable {
        package var rawTokens: Int
        package var alreadyCoded: [Range<Int>]
        package var ready: [StoreKey]
    }

    /// Replaces a session's policy: a grown window takes raw pages back from the coder, a shrunk one releases them.
    package mutating func setPolicy(_ id: UInt32, _ policy: WirePolicy) -> PolicyChange? {
        guard let session = sessions[id] else { return nil }
        let old = session.protection
        change(id) {
            $0.policy = policy
            $0.released = 0
            $0.isIdle = false
        }
        let new = Protection(policy: policy, tokens: session.tokens)
        var lost: [Range<Int>] = []
        for entry in session.pages {
            guard case .coded(let exact)? = pages[entry.key]?.phase else { continue }
            for row in 0..<entry.tokens {
                let position = entry.first + row
                guard new.contains(position), !old.contains(position), exact?.contains(row) != true else { continue }
                if let last = lost.last, last.upperBound == position {
                    lost[lost.count - 1] = last.lowerBound..<position + 1
                } else {
                    lost.append(position..<position + 1)
                }
            }
        }
        let ready = release(id)
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
