import KVTCModel
import KVTCSessions
import TestSupport
import Testing

import struct KVTCStore.StoreKey

// Any history of pushes, edits, policies and coders.
extension LedgerTests {
    // Against a model that asks every session about every row: after any history, no row that an open session protects
    // is lossy, unless it was so before the session or its policy came.
    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64]) func randomHistoriesKeepEveryPromise(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var ledger = Ledger()
        var open: [UInt32] = []
        var queued: [StoreKey] = []
        var running: [(StoreKey, EncodePlan)] = []
        func randomPolicy() -> Policy {
            let begin = UInt32.random(in: 0..<150, using: &generator)
            var policy = Self.policy(
                .random(in: 0..<20, using: &generator), .random(in: 0..<80, using: &generator),
                Bool.random(using: &generator) ? [begin..<begin + 9] : [])
            if Bool.random(using: &generator) { policy.near = .random(in: 0.001..<0.1, using: &generator) }
            return policy
        }
        for now in 1...3000 {
            switch Int.random(in: 0..<10, using: &generator) {
            case 0 where open.count < 4: open.append(Self.session(&ledger, randomPolicy()))
            case 1 where !open.isEmpty:
                queued += ledger.close(open.remove(at: .random(in: 0..<open.count, using: &generator)))
            case 2:
                if let id = open.randomElement(using: &generator) {
                    queued += ledger.setPolicy(id, randomPolicy())?.ready ?? []
                }
            case 3, 4:
                guard let id = open.randomElement(using: &generator), let session = ledger.sessions[id] else {
                    continue
                }
                ledger.touch(id, now: UInt64(now))
                let page = session.tokens / 16
                // A page nobody uses any more is coded in the store; one in the ledger is what the ledger says.
                let known = ledger.pages[Self.key(UInt64(page))]
                queued += Self.push(&ledger, id, page..<page + 1, coded: known.map(\.isCoded))
            case 6:
                // An edit, or the end cut off.
                guard let id = open.randomElement(using: &generator), let session = ledger.sessions[id] else {
                    continue
                }
                let end = Int.random(in: 0...session.tokens, using: &generator)
                if Bool.random(using: &generator) {
                    queued += ledger.truncate(id, to: end).ready
                } else {
                    let (page, branch) = (end / 16, UInt64.random(in: 0..<3, using: &generator))
                    let known = ledger.pages[Self.key(UInt64(page), branch: branch)]
                    queued += Self.push(
                        &ledger, id, page..<page + 1, branch: branch, coded: known.map(\.isCoded))
                    #expect(ledger.sessions[id]?.tokens ?? 0 >= page * 16 + 16, "seed \(seed)")
                }
            case 8: queued += ledger.markIdle(unusedSince: UInt64(max(0, now - 50)))
            case 9:
                // A page coded near-losslessly may be pushed anew by any session, at its place.
                guard let (key, page) = ledger.pages.filter({ $0.value.isCoded }).randomElement(using: &generator),
                    let id = open.randomElement(using: &generator)
                else { continue }
                let first = Int(key.words[0]) * 16
                let users = page.users
                guard let before = ledger.beginRenewal(key) else { continue }
                if Bool.random(using: &generator) {
                    #expect(ledger.endRenewal(key, before) == [], "seed \(seed)")
                    #expect(ledger.pages[key]?.isCoded == true, "seed \(seed)")
                } else {
                    queued += ledger.pushed(id, key: key, first: first, tokens: 16, coded: nil)
                    let after = ledger.pages[key]?.users ?? [:]
                    #expect(users.allSatisfy { after[$0.key] == $0.value }, "seed \(seed)")
                }
            case 5:
                guard !queued.isEmpty else { continue }
                let key = queued.removeFirst()
                if let plan = ledger.beginEncode(key) { running.append((key, plan)) }
            default:
                guard !running.isEmpty else { continue }
                let (key, plan) = running.removeFirst()
                switch ledger.endEncode(key, plan) {
                case .forget: break
                case .again: queued.append(key)
                case .replace:
                    for (id, first) in ledger.pages[key]?.users ?? [:] {
                        guard let session = ledger.sessions[id] else { continue }
                        // A session's window is open to the coder only while it rests, and within its bound.
                        let isClose = session.isIdle && (plan.choice.near ?? 1) <= (session.policy.near ?? 0)
                        for row in 0..<16 where session.protection.contains(first + row) {
                            let isWindowOnly =
                                !session.protection.rows(first: first, tokens: 16, window: false).contains(row)
                            #expect(
                                plan.protected.contains(row) || plan.choice.mode.isExact || isClose && isWindowOnly,
                                "seed \(seed)")
                        }
                    }
                    ledger.endReplace(
                        key, generation: plan.generation, coded: CodedPage(exact: plan.protected, mode: .quant8))
                }
            }
        }
        // Nothing is forgotten: when all is over, everything has been coded.
        for id in open { queued += ledger.close(id) }
        for (key, plan) in running {
            switch ledger.endEncode(key, plan) {
            case .replace:
                let coded = CodedPage(exact: plan.protected, mode: .quant8)
                ledger.endReplace(key, generation: plan.generation, coded: coded)
            case .again: queued.append(key)
            case .forget: break
            }
        }
        while !queued.isEmpty {
            let key = queued.removeFirst()
            _ = Self.encode(&ledger, key)
        }
        for (key, page) in ledger.pages where !page.isCoded {
            Issue.record("seed \(seed): \(key) is left \(page.phase)")
        }
    }
}
