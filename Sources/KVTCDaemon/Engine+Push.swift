import KVTCCodec
import KVTCProtocol
import KVTCStore
import KVTCSystem

extension Engine {
    /// Stores pages. `arena` is the one the request names, nil for inline bytes.
    func push(_ request: PushRequest, arena: Arena?, _ caller: Caller) throws(WireError) -> PushReply {
        let start = MonotonicClock.nanoseconds
        let session = try session(request.session, caller)
        try checkCount(request.entries.count, "entries")
        let keys = request.entries.map { storeKey(session, $0.key) }
        try check(request, session, bytes: UInt64(arena?.byteCount ?? request.inline.count))
        try checkPositions(request, session, keys)
        var outcomes: [PushOutcome] = []
        outcomes.reserveCapacity(keys.count)
        for (entry, key) in zip(request.entries, keys) {
            let outcome = try store(entry, key, session, arena: arena, inline: request.inline)
            outcomes.append(outcome)
            enqueue(ledger.update { $0.release(session.id) })
        }
        metrics.record(.push, session.tenant, since: start)
        return PushReply(outcomes: outcomes)
    }

    // Everything is checked before anything is stored: a refused request has changed nothing.
    private func check(_ request: PushRequest, _ session: Session, bytes: UInt64) throws(WireError) {
        let limit = configuration.limits.sessionTokens
        for (index, entry) in request.entries.enumerated() {
            func refuse(_ code: ErrorCode, _ field: String, _ message: String) -> WireError {
                WireError(code, field: "entries[\(index)].\(field)", message)
            }
            guard (1...session.pageTokens).contains(Int(entry.tokens)) else {
                throw refuse(.invalidField, "tokens", "\(entry.tokens) is not between 1 and \(session.pageTokens)")
            }
            guard Int(entry.firstPosition) + Int(entry.tokens) <= limit else {
                throw refuse(.limitExceeded, "firstPosition", "positions end at \(limit)")
            }
            let expected = UInt64(entry.tokens) * UInt64(session.tokenBytes)
            guard entry.length == expected else {
                throw refuse(
                    .geometryMismatch, "length", "\(entry.length), but \(entry.tokens) tokens have \(expected)")
            }
            let (end, overflow) = entry.offset.addingReportingOverflow(entry.length)
            guard !overflow, end <= bytes else {
                throw refuse(.arenaBounds, "offset", "\(entry.offset) + \(entry.length) lies beyond \(bytes) bytes")
            }
        }
    }

    private func checkPositions(_ request: PushRequest, _ session: Session, _ keys: [StoreKey]) throws(WireError) {
        var seen: Set<StoreKey> = []
        let entries = zip(request.entries, keys).map { entry, key in
            let isThere = !seen.insert(key).inserted || store.residence(key) != .absent
            return (first: Int(entry.firstPosition), tokens: Int(entry.tokens), present: isThere)
        }
        if let index = ledger.withLock({ $0.conflict(session.id, entries) }) {
            throw WireError(
                .positionConflict, field: "entries[\(index)].firstPosition",
                "\(entries[index].first) lies before the end of what was pushed")
        }
    }

    private func store(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, arena: Arena?, inline: ArraySlice<UInt8>
    ) throws(WireError) -> PushOutcome {
        if let attributes = store.attributes(key) { return present(entry, key, session, attributes) }
        // The client may write its arena at any time: one private copy is all that is looked at.
        let page: [UInt8]
        if let arena {
            guard let copy = arena.copy(offset: entry.offset, length: entry.length) else {
                throw WireError(.arenaBounds, field: "entries", "outside the arena")
            }
            page = copy
        } else {
            let begin = inline.startIndex + Int(entry.offset)
            page = Array(inline[begin..<begin + Int(entry.length)])
        }
        let context = session.context
        let isBad = page.withUnsafeBytes { context.layout.element.hasNonFinite($0) }
        let block: [UInt8]
        do throws(CodecError) { block = try wrap(page, entry, context) } catch {
            throw WireError(codec: error, field: "entries")
        }
        var attributes = PageAttributes(
            priority: session.policy.priority, pinned: session.policy.pin, firstPosition: entry.firstPosition,
            tokens: entry.tokens, rawBytes: entry.length)
        if case .at(let second) = expiry(ttl: session.policy.ttlSeconds) { attributes.expires = second }
        switch put(key, block, attributes) {
        case .full: return .full
        case .tooLarge: return .tooLarge
        case .present: return present(entry, key, session, store.attributes(key) ?? attributes)
        case .stored: break
        }
        ledger.update {
            $0.pushed(session.id, key: key, first: Int(entry.firstPosition), tokens: Int(entry.tokens), coded: nil)
        }
        metrics.count(session.tenant) {
            $0.pushed += 1
            $0.rawBytesIn += entry.length
            $0.nonFinite += isBad ? 1 : 0
        }
        return isBad ? .nonFinite : .stored
    }

    private func wrap(_ page: [UInt8], _ entry: PushEntry, _ context: CodingContext) throws(CodecError) -> [UInt8] {
        // withUnsafeBytes forwards typed errors only through a result.
        let result = page.withUnsafeBytes { bytes in
            Result { () throws(CodecError) in
                try context.codec.wrap(
                    page: bytes, layout: context.layout, tokens: Int(entry.tokens),
                    firstPosition: Int(entry.firstPosition))
            }
        }
        return try result.get()
    }

    private func present(
        _ entry: PushEntry, _ key: StoreKey, _ session: Session, _ attributes: PageAttributes
    ) -> PushOutcome {
        // Only a page of the same length can be the same page; its rows are what the ledger counts.
        ledger.update {
            $0.pushed(
                session.id, key: key, first: Int(entry.firstPosition), tokens: Int(attributes.tokens),
                coded: attributes.coded)
        }
        if session.policy.ttlSeconds != 0 { store.update(key, expiry: expiry(ttl: session.policy.ttlSeconds)) }
        metrics.count(session.tenant) { $0.present += 1 }
        return .present
    }

    // Pages that wait for their coder are about to make room: a full store is asked again when one of them is done.
    private func put(_ key: StoreKey, _ block: [UInt8], _ attributes: PageAttributes) -> PutOutcome {
        let deadline = MonotonicClock.nanoseconds + 10_000_000_000
        while true {
            let seen = encodesDone.withLock { $0 }
            let outcome = store.put(key, bytes: block, attributes: attributes)
            guard outcome == .full, pendingEncodes > 0 else { return outcome }
            guard encodesDone.wait(until: deadline, { $0 != seen ? true : nil }) != nil else { return .full }
        }
    }
}
